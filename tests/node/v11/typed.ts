// Compiled, never run: what the served types must allow.
import { createTRPCClient, httpBatchLink, httpSubscriptionLink, TRPCClientError } from '@trpc/client';
import type { inferRouterInputs, inferRouterOutputs } from '@trpc/server';

import type { AppRouter, AppStreams, LogEntry } from './argosy';

const argosy = createTRPCClient<AppRouter>({ links: [httpBatchLink({ url: '/api/trpc' })] });
const streams = createTRPCClient<AppStreams>({ links: [httpSubscriptionLink({ url: '/api/trpc' })] });

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const yes = <T extends true>(): T | undefined => undefined;

type Inputs = inferRouterInputs<AppRouter>;
type Outputs = inferRouterOutputs<AppRouter>;
yes<Same<Inputs['container']['scale'], { containerId: string; replicas: number }>>();
yes<Same<Outputs['container']['all'][number]['id'], string>>();
yes<Same<Outputs['project']['remove'], undefined>>();

export async function use(): Promise<string[]> {
  const health = await argosy.system.health.query();
  yes<Same<typeof health.agents.connected, number>>();
  const made = await argosy.container.create.mutate({
    projectId: 'proj_1',
    name: 'web',
    image: 'web:1',
    healthCheck: { type: 'http', port: 8080 },
    env: [{ key: 'MODE', value: 'fast' }],
  });
  const lines = await argosy.container.logs.query({ containerId: made.id, tail: 10 });
  yes<Same<typeof lines, LogEntry[]>>();
  await argosy.container.remove.mutate({ containerId: made.id });
  const subscription = streams.container.logs.subscribe(
    { containerId: made.id, follow: true },
    { onData: (entry) => void entry.data.line.length, onError: (error) => void error.data?.httpStatus },
  );
  subscription.unsubscribe();
  const ticks = argosy.test.ticks.subscribe({ count: 3 }, { onData: (tick) => void [tick.id.length, tick.data.number + 1] });
  ticks.unsubscribe();
  return lines.map((entry) => entry.line);
}

export function explain(error: unknown): string {
  if (!(error instanceof TRPCClientError)) return 'other';
  const known = error as TRPCClientError<AppRouter>;
  return known.data?.code === 'NOT_FOUND' ? `${known.data.httpStatus} at ${known.data.path ?? '?'}` : known.message;
}
