// Compiled, never run: every line with a mark must be an error, and nothing else.
import { createTRPCClient, httpBatchLink } from '@trpc/client';

import type { AppRouter } from './argosy';

const argosy = createTRPCClient<AppRouter>({ links: [httpBatchLink({ url: '/api/trpc' })] });

void argosy.container.scale.mutate({ containerId: 'ctr_1', replicas: 'three' }); // WRONG: a string
void argosy.container.scale.mutate({ containerId: 'ctr_1' }); // WRONG: a field is missing
void argosy.container.fly.mutate({ containerId: 'ctr_1' }); // WRONG: no such procedure
void argosy.container.scale.query({ containerId: 'ctr_1', replicas: 3 }); // WRONG: a mutation
void argosy.container.one.query(); // WRONG: no input
void argosy.container.one.query({ containerId: 'ctr_1' }).then((one) => one.nonsense); // WRONG: no such field
void argosy.container.update.mutate({ containerId: 'ctr_1', restartPolicy: 'sometimes' }); // WRONG: none of the values
