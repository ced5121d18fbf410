// Follows one subscription and writes what happens to it, a JSON line each. Arguments: procedure, input as JSON, and how the token
// travels: `header` or `query`.
import { createTRPCUntypedClient, httpSubscriptionLink } from '@trpc/client';
import { EventSource } from 'eventsource';

import { headers, token, url } from '../checks.mjs';

const [procedure, input, way] = process.argv.slice(2);
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const withHeader = {
  eventSourceOptions: { fetch: (at, init) => fetch(at, { ...init, headers: { ...init.headers, ...headers() } }) },
};
const client = createTRPCUntypedClient({
  links: [
    httpSubscriptionLink({
      url,
      EventSource,
      ...(way === 'header' ? withHeader : { connectionParams: async () => ({ token }) }),
    }),
  ],
});

client.subscription(procedure, JSON.parse(input), {
  onStarted: () => say({ started: true }),
  onData: (data) => say({ data }),
  onError: (error) => say({ error: error.message, code: error.data?.code, httpStatus: error.data?.httpStatus }),
  onComplete: () => say({ complete: true }),
  onConnectionStateChange: ({ state, error }) => say({ state, because: error?.data?.code ?? null }),
});
