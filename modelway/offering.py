"""What can be asked for: the models that upstreams list, remembered for a while and never waited for long."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from modelway.errors import GatewayError, UpstreamUnreachable
from modelway.provider import Provider, ProviderInfo
from modelway.types import Model

FRESH_FOR_S = 300.0
FAILURE_FRESH_FOR_S = 30.0
WAIT_S = 2.0
ASK_TIMEOUT_S = 10.0
MAX_MODELS = 2000

_log = logging.getLogger("modelway.offering")


class _Listed(Struct, frozen=True):
    """What an upstream listed, and until when (of the loop's clock) it need not be asked again.

    `unreachable` says why, where nobody was there to list anything; `answered`: somebody was.
    """

    models: tuple[Model, ...]
    until: float
    unreachable: str = ""
    answered: bool = False


class Offering:
    """Asks upstreams for their models, and remembers what they say.

    A list never waits longer than `wait_s` for the slow ones: they are asked on, and what they said before,
    or what is known of them, stands in its place.
    """

    def __init__(self, providers: Mapping[str, Provider], *, wait_s: float = WAIT_S) -> None:
        self._providers = providers
        self._wait_s = wait_s
        self._listed: dict[str, _Listed] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    async def infos(self, names: Iterable[str] = (), *, refresh: bool = False) -> list[ProviderInfo]:
        """The providers of these names, or all, with the models that their upstreams list."""
        chosen = list(names) or list(self._providers)
        await self._ask(chosen, refresh=refresh)
        return [self._known(self._providers[name].info) for name in chosen]

    async def models(self, plain: Iterable[str], *, refresh: bool = False) -> list[Model]:
        """The `plain` names, which lead to a model by themselves, then every model as "Provider/model".

        Providers that are not ready are left out, and those whose upstream never was there.
        """
        await self._ask(list(self._providers), refresh=refresh)
        models = [Model(id=name, owned_by="modelway") for name in plain]
        for provider in self._providers.values():
            info = provider.info
            if not self._known(info).ready and not self._models(info):
                continue
            known = {name: Model(id=name) for name in (info.default_model, *info.models) if name}
            known |= {model.id: model for model in self._models(info)}
            models += [
                replace(model, id=f"{info.name}/{name}", owned_by=info.name) for name, model in known.items()
            ]
        return models

    async def aclose(self) -> None:
        """Ask no more."""
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    def _known(self, info: ProviderInfo) -> ProviderInfo:
        """The description, with what was learnt when its upstream was asked."""
        listed = self._listed.get(info.name)
        if listed is None or not info.ready:
            return info
        if listed.unreachable:
            return replace(info, ready=False, missing=listed.unreachable, untried=False)
        models = tuple(model.id for model in listed.models) or info.models
        return replace(info, models=models, untried=info.untried and not listed.answered)

    def _models(self, info: ProviderInfo) -> tuple[Model, ...]:
        listed = self._listed.get(info.name)
        return listed.models if listed and info.ready else ()

    async def _ask(self, names: list[str], *, refresh: bool) -> None:
        now = asyncio.get_running_loop().time()
        for name in names:
            listed = self._listed.get(name)
            is_due = refresh or listed is None or listed.until < now
            if is_due and name not in self._asking and self._providers[name].info.ready:
                self._asking[name] = asyncio.create_task(self._ask_one(name))
        waiting = [self._asking[name] for name in names if name in self._asking]
        if waiting:
            await asyncio.wait(waiting, timeout=self._wait_s)

    async def _ask_one(self, name: str) -> None:
        """Note what an upstream lists, or that it did not, which leaves what it listed before."""
        before = self._listed.get(name)
        found = _Listed(before.models if before else (), FAILURE_FRESH_FOR_S)
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                listed = await self._providers[name].models()
            named = [model for model in listed if model.id]
            found = _Listed(tuple(named[:MAX_MODELS]), FRESH_FOR_S, answered=True)
        except UpstreamUnreachable as error:
            found = replace(found, unreachable=error.explanation)
        except (GatewayError, TimeoutError) as error:
            _log.debug("%s did not list its models: %s", name, error)
        # A stranger's code may fail in any way, and the other providers must still be listed.
        except Exception:  # noqa: BLE001
            _log.exception("%s failed to list its models", name)
        finally:
            del self._asking[name]
        self._listed[name] = replace(found, until=asyncio.get_running_loop().time() + found.until)
