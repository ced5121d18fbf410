import * as trpc from '@trpc/client';

import { checkCalls, checkMixed, checkStranger, checkStreaming, checkTooMany, counted, headers, refused, url } from '../checks.mjs';

const { createTRPCClient, httpBatchLink, httpBatchStreamLink, httpLink } = trpc;
const over = (link, options = {}) =>
  createTRPCClient({ links: [link({ url, headers, fetch: counted, ...options })] });

const links = {
  'over-http': over(httpLink),
  'over-batch': over(httpBatchLink),
  'over-stream': over(httpBatchStreamLink),
  'over-accept': over(httpBatchStreamLink, { streamHeader: 'accept' }),
  'over-post': over(httpLink, { methodOverride: 'POST' }),
  'over-post-batch': over(httpBatchLink, { methodOverride: 'POST' }),
};
for (const [name, client] of Object.entries(links)) await checkCalls(client, trpc, name);

await checkMixed(links['over-http'], trpc, { requests: 4 });
await checkMixed(links['over-batch'], trpc, { requests: 1, status: 207 });
await checkMixed(links['over-stream'], trpc, { requests: 1, status: 200 });
await checkMixed(links['over-post-batch'], trpc, { requests: 1, status: 207 });
await checkStreaming(links['over-stream'], links['over-http']);

for (const link of [httpLink, httpBatchLink, httpBatchStreamLink]) {
  await checkStranger(createTRPCClient({ links: [link({ url })] }), trpc);
}
await checkTooMany(links['over-batch'], trpc);
await checkTooMany(links['over-stream'], trpc);

// A mutation asked for as if it were a query.
for (const client of [links['over-http'], links['over-batch'], links['over-stream']]) {
  const error = await refused(client.project.remove.query({ projectId: 'proj_none' }), trpc.TRPCClientError, 'METHOD_NOT_SUPPORTED', 405);
  if (error.shape.code !== -32005) throw new Error(`code ${error.shape.code}`);
}
console.log('ok');
