"""Sign-ins with a code that have begun on the page."""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec.structs import asdict

from modelway.errors import GatewayError, UpstreamError
from modelway.provider import Provider, SignInCode, SignsIn


class Codes:
    """One sign-in for each provider: another one takes its place."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[str]] = {}

    async def begin(self, provider: SignsIn) -> dict[str, object]:
        """Ask for a code, and wait in the background until it was entered; raises a GatewayError."""
        assert isinstance(provider, Provider)  # noqa: S101 - tells the type checker
        shown: asyncio.Future[SignInCode] = asyncio.get_running_loop().create_future()
        name = provider.info.name
        if (before := self._tasks.pop(name, None)) is not None:
            before.cancel()
        task = self._tasks[name] = asyncio.create_task(provider.sign_in(shown.set_result))
        waiting: set[asyncio.Future[Any]] = {task, shown}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not shown.done():
            task.result()
            raise UpstreamError(f"{name} asked for no code")
        code = shown.result()
        if not code.address.startswith(("https://", "http://localhost", "http://127.0.0.1")):
            task.cancel()
            raise UpstreamError(f"{name} named a page that is not safe to open")
        return asdict(code)

    def state(self, name: str) -> dict[str, str]:
        """`waiting`, `done` with the account's name, or `failed` with the reason."""
        task = self._tasks.get(name)
        if task is None or task.cancelled():
            return {"state": "failed", "text": "no sign-in is under way"}
        if not task.done():
            return {"state": "waiting", "text": ""}
        error = task.exception()
        if error is None:
            return {"state": "done", "text": task.result()}
        if not isinstance(error, GatewayError):
            raise error
        return {"state": "failed", "text": error.explanation}

    async def aclose(self) -> None:
        """Wait for nobody any longer."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
