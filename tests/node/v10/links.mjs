import * as trpc from '@trpc/client';

import { checkCalls, checkMixed, checkStranger, checkStreaming, checkTooMany, counted, headers, refused, url } from '../checks.mjs';

const { createTRPCProxyClient, httpBatchLink, httpLink, unstable_httpBatchStreamLink } = trpc;
const over = (link) => createTRPCProxyClient({ links: [link({ url, headers, fetch: counted })] });

const links = {
  'over-http': over(httpLink),
  'over-batch': over(httpBatchLink),
  'over-stream': over(unstable_httpBatchStreamLink),
};
for (const [name, client] of Object.entries(links)) await checkCalls(client, trpc, `old-${name}`);

await checkMixed(links['over-http'], trpc, { requests: 4 });
await checkMixed(links['over-batch'], trpc, { requests: 1, status: 207 });
await checkMixed(links['over-stream'], trpc, { requests: 1, status: 200 });
await checkStreaming(links['over-stream'], links['over-http']);

for (const link of [httpLink, httpBatchLink, unstable_httpBatchStreamLink]) {
  await checkStranger(createTRPCProxyClient({ links: [link({ url })] }), trpc);
}
await checkTooMany(links['over-batch'], trpc);
await checkTooMany(links['over-stream'], trpc);

for (const client of Object.values(links)) {
  await refused(client.project.remove.query({ projectId: 'proj_none' }), trpc.TRPCClientError, 'METHOD_NOT_SUPPORTED', 405);
}
console.log('ok');
