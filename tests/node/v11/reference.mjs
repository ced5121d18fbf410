// tRPC's own server with the same procedures as the tests stage in ours: what it answers is what ours is compared with.
import { initTRPC, tracked, TRPCError } from '@trpc/server';
import { createHTTPServer } from '@trpc/server/adapters/standalone';

const t = initTRPC.create({ isDev: false, sse: { client: { reconnectAfterInactivityMs: 30000 } } });

const record = (value) => {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) {
    throw new TRPCError({ code: 'BAD_REQUEST', message: 'no object' });
  }
  return value;
};
const echo = (value) => {
  if (typeof record(value).text !== 'string') throw new TRPCError({ code: 'BAD_REQUEST', message: 'no text' });
  return value;
};

const appRouter = t.router({
  test: t.router({
    echo: t.procedure.input(echo).query(({ input }) => ({ text: input.text })),
    fail: t.procedure.input(record).query(({ input }) => {
      throw new TRPCError({ code: input.code, message: 'as asked' });
    }),
    put: t.procedure.input(echo).mutation(() => undefined),
    ticks: t.procedure.input(record).subscription(async function* ({ input }) {
      for (let number = Number(input.lastEventId ?? input.cursor ?? 0) + 1; number <= input.count; number += 1) {
        yield tracked(String(number), { number, cursor: String(number) });
      }
      if (input.fail) throw new TRPCError({ code: 'PRECONDITION_FAILED', message: 'as asked' });
    }),
  }),
});

const server = createHTTPServer({ router: appRouter, basePath: '/api/trpc/', allowMethodOverride: true, maxBatchSize: 32 });
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
