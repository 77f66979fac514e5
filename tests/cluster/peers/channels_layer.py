"""channels_redis, the layer that servers of Django Channels meet over: two processes, without the servers and their clients."""

import asyncio
import subprocess
import sys
import time

from channels_redis.pubsub import RedisPubSubChannelLayer

URL = sys.argv[1]
HOPS, MESSAGES = 5_000, 50_000


async def answer(layer):
    """The other process: answers what comes, and counts what comes in quick succession."""
    own = await layer.new_channel()
    await layer.group_add("there", own)
    print("ready", flush=True)
    while True:
        message = await layer.receive(own)
        if message["type"] == "tell" or message["last"]:
            await layer.group_send("here", message)


async def measure(layer):
    own = await layer.new_channel()
    await layer.group_add("here", own)
    other = subprocess.Popen([sys.executable, __file__, URL, "other"], stdout=subprocess.PIPE)
    try:
        other.stdout.readline()
        times = []
        for _ in range(HOPS):
            began = time.perf_counter()
            await layer.group_send("there", {"type": "tell", "text": "x"})
            await layer.receive(own)
            # There and back: two hops.
            times.append((time.perf_counter() - began) / 2 * 1e6)
        times.sort()
        p50, p99 = (f"{times[int(len(times) * part)]:.1f}us" for part in (0.5, 0.99))
        print(f"{'from one process to another':44} {p50:>10} {p99:>10}")
        began = time.perf_counter()
        for number in range(MESSAGES):
            await layer.group_send("there", {"type": "count", "last": number + 1 == MESSAGES})
        await asyncio.wait_for(layer.receive(own), 60)
        print(f"{MESSAGES / (time.perf_counter() - began):.0f} messages a second to another process")
    finally:
        other.kill()


def main():
    layer = RedisPubSubChannelLayer(hosts=[URL], capacity=MESSAGES)
    asyncio.run(answer(layer) if len(sys.argv) > 2 else measure(layer))


main()
