// What both versions of the client must get over every link. A version hands in its client, already bound to one link.
// The coordinator's address, a token and ids arrive in the environment; any failed assertion ends the process.
import assert from 'node:assert/strict';

export const url = `${process.env.ARGOSY_URL}/api/trpc`;
export const token = process.env.ARGOSY_TOKEN;
export const organizationId = process.env.ARGOSY_ORGANIZATION;
export const containerId = process.env.ARGOSY_CONTAINER;

// Every request goes through this, so that a check can see how many there were and with which status.
export const seen = [];
export async function counted(input, init) {
  const response = await fetch(input, init);
  seen.push({ url: String(input), method: init?.method ?? 'GET', status: response.status });
  return response;
}

export const headers = () => ({ authorization: `Bearer ${token}` });

async function refused(promise, TRPCClientError, code, httpStatus) {
  const error = await promise.then(
    (value) => assert.fail(`expected ${code}, got ${JSON.stringify(value)}`),
    (reason) => reason,
  );
  assert.ok(error instanceof TRPCClientError, String(error));
  assert.equal(error.data?.code, code, error.message);
  assert.equal(error.data.httpStatus, httpStatus);
  return error;
}

export async function checkCalls(client, { TRPCClientError }, name) {
  const expectRefusal = (promise, code, status) => refused(promise, TRPCClientError, code, status);

  const me = await client.system.whoami.query();
  assert.equal(me.roles[organizationId], 'owner');

  const made = await client.project.create.mutate({ organizationId, name });
  assert.equal(made.name, name);
  const listed = await client.project.all.query({ organizationId, search: name });
  assert.deepEqual(listed.map((one) => one.id), [made.id]);
  const changed = await client.project.update.mutate({ projectId: made.id, description: 'é — 漢字 & "quotes"' });
  assert.equal(changed.description, 'é — 漢字 & "quotes"');
  assert.equal(await client.project.remove.mutate({ projectId: made.id }), undefined);

  const gone = await expectRefusal(client.project.one.query({ projectId: made.id }), 'NOT_FOUND', 404);
  assert.equal(gone.shape.code, -32004);
  assert.equal(gone.data.path, 'project.one');
  const wrong = await expectRefusal(client.project.create.mutate({ organizationId, name: 7 }), 'BAD_REQUEST', 400);
  assert.match(wrong.message, /^name: expected str/);
  assert.equal(wrong.shape.code, -32600);
  await expectRefusal(client.project.fly.query(), 'NOT_FOUND', 404);
  await expectRefusal(client.container.logs.query({ containerId, follow: true }), 'BAD_REQUEST', 400);
}

export async function checkMixed(client, { TRPCClientError }, { requests, status }) {
  seen.length = 0;
  const [version, missing, bad, whoami] = await Promise.allSettled([
    client.system.version.query(),
    client.container.one.query({ containerId: 'ctr_none' }),
    client.container.one.query({ containerId, nonsense: true }),
    client.system.whoami.query(),
  ]);
  assert.equal(version.status, 'fulfilled');
  assert.equal(whoami.status, 'fulfilled');
  assert.ok(missing.reason instanceof TRPCClientError);
  assert.deepEqual(
    [missing.reason.data.code, missing.reason.data.httpStatus, missing.reason.data.path],
    ['NOT_FOUND', 404, 'container.one'],
  );
  assert.match(bad.reason.message, /nonsense: unknown field/);
  assert.equal(seen.length, requests);
  if (status) assert.equal(seen[0].status, status);
}

// The fast answer of a streamed batch is there while the slow one is still waiting for it.
export async function checkStreaming(client, other) {
  seen.length = 0;
  let slowIsDone = false;
  const slow = client.test.held.query().then((value) => {
    slowIsDone = true;
    return value;
  });
  const fast = await client.system.version.query();
  assert.ok(fast.version);
  assert.equal(slowIsDone, false);
  await other.test.release.mutate();
  assert.deepEqual(await slow, { released: true });
  assert.equal(seen.filter((one) => one.url.includes('test.held,system.version')).length, 1, JSON.stringify(seen));
}

export async function checkStranger(client, { TRPCClientError }) {
  const error = await refused(client.system.whoami.query(), TRPCClientError, 'UNAUTHORIZED', 401);
  assert.equal(error.shape.code, -32001);
  assert.ok((await client.system.health.query()).status);
}

export async function checkTooMany(client, { TRPCClientError }) {
  const calls = Array.from({ length: 33 }, () => client.system.version.query());
  for (const call of calls) {
    const error = await refused(call, TRPCClientError, 'BAD_REQUEST', 400);
    assert.match(error.message, /at most 32/);
  }
}

export { refused };
