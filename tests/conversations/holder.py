"""A process that holds turns of a store, for tests that kill or stop it.

It obeys lines on stdin ("begin c hello", "say half an", "finish") and answers each with a line.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec.structs import replace

from modelway.errors import GatewayError
from modelway.types import Finish, TextDelta
from tests.conversations.talk import ME, asking, begin, claim, open_store


class Holder:
    """The process, as its parent sees it."""

    def __init__(
        self,
        folder: Path,
        *,
        lease_s: float = 15.0,
        checkpoint_s: float = 0.02,
        on_crash: str = "interrupt",
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(folder), str(lease_s), str(checkpoint_s), on_crash],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def tell(self, command: str) -> str:
        """Have it do something; returns when it says that it is done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        reply = self._process.stdout.readline().strip()
        assert reply, "the process has died"
        return reply

    def stop(self) -> None:
        """Let it stand still."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it without a warning."""
        self._process.kill()
        self._process.communicate()


async def obey(folder: Path, lease_s: float, checkpoint_s: float, on_crash: str) -> None:
    """Follow the commands until stdin ends."""
    settings = {"lease_s": lease_s, "checkpoint_s": checkpoint_s, "on_crash": on_crash}
    async with aclosing(open_store(folder, **settings)) as store:
        while line := await asyncio.to_thread(sys.stdin.readline):
            match line.strip().split(" ", 2):
                case ["begin", name, text]:
                    turn = await begin(store, name, text)
                case ["claim", key, turn_id]:
                    await claim(store, key, turn_id)
                case ["open", turn_id]:
                    turn = await store.open_turn(
                        ME, replace(asking("", "one"), store=True, turn_id=turn_id, when_left="grace")
                    )
                case ["say", *text]:
                    turn.record(TextDelta(text=" ".join(text)))
                case ["finish"]:
                    turn.record(Finish())
                    try:
                        await turn.finish("Provider", "model-1")
                    except GatewayError as error:
                        print(error.code, flush=True)
                        continue
            print("ok", flush=True)


if __name__ == "__main__":
    asyncio.run(obey(Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), sys.argv[4]))
