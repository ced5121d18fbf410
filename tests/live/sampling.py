"""Run on a host, as the agent is: sees its engine's processes. Prints two readings of all instances, a second apart, as JSON."""

import asyncio
import sys
import time

import msgspec

from agent.metrics.instances import InstanceSampler
from agent.runtime.docker import DockerRuntime


async def main(docker_host: str, node_id: str) -> None:
    runtime = DockerRuntime(docker_host, node_id, lambda: "10.0.0.1")
    observed = await runtime.observe()
    await runtime.close()
    sampler = InstanceSampler()
    first = sampler.sample(observed, time.time())
    await asyncio.sleep(1)
    sys.stdout.buffer.write(msgspec.json.encode([first, sampler.sample(observed, time.time())]))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
