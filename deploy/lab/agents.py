"""Many agents in one process, over real sockets: ``python -m deploy.lab.agents DIRECTOR[,DIRECTOR…] SERVICE/GROUP COUNT``.

Agent N speaks for host ``hN`` and reports once a second to every director, each report another load, so that each moves a
weight. A connection that ends is made again after a second and a bit. Says once a second how many connections are welcome,
one number in a line; ends when standard input closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time

INTERVAL_S = 1.0


class Swarm:
    def __init__(self, group: str) -> None:
        self.group = group
        self.welcome = 0
        self.boot = f"{time.time_ns():x}"

    async def agent(self, number: int, director: str) -> None:
        """One agent's connection to one director, again and again."""
        host, _, port = director.rpartition(":")
        await asyncio.sleep(random.random() * INTERVAL_S)
        while True:
            with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection(host, int(port))
                try:
                    await self.talk(number, reader, writer)
                finally:
                    writer.transport.abort()
            await asyncio.sleep(1.0 + random.random())

    async def talk(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = {"type": "hello", "version": 1, "agent": f"h{number}", "boot_id": f"{self.boot}-{number}", "token": "lab",
                 "hosts": [{"host": f"{self.group}/h{number}"}]}
        writer.write(json.dumps(hello).encode() + b"\n")
        if json.loads(await reader.readline()).get("type") != "welcome":
            return
        self.welcome += 1
        try:
            ended = asyncio.ensure_future(reader.read())  # orders are of no interest; the end is
            seq, due = 0, time.monotonic()
            while not ended.done():
                seq += 1
                load = f'{{"utilisation":{random.random():.3f},"rate":100,"completions":100}}'
                writer.write(f'{{"type":"report","seq":{seq},"load":{load}}}\n'.encode())
                due += INTERVAL_S
                await asyncio.wait([ended], timeout=max(0.0, due - time.monotonic()))
        finally:
            self.welcome -= 1


async def main() -> None:
    directors, group, count = sys.argv[1].split(","), sys.argv[2], int(sys.argv[3])
    swarm = Swarm(group)
    tasks = [asyncio.ensure_future(swarm.agent(number, director)) for number in range(count) for director in directors]
    over = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    while not over.done():
        await asyncio.wait([over], timeout=1.0)
        print(swarm.welcome, flush=True)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main())
