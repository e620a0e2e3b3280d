"""The contract of providers, before providers that break it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from _pytest.outcomes import Failed

from modelway.errors import ProviderNotConfigured
from modelway.provider import ProviderInfo
from modelway.providers.announced import Announced
from modelway.testing import FakeStage, FakeUpstream, UpstreamContract

pytestmark = pytest.mark.anyio


class Impatient(UpstreamContract):
    """The contract for a test of it."""

    __test__ = False
    wait_s = 0.01


@pytest.fixture
async def stage() -> AsyncIterator[FakeStage]:
    """A provider that never calls its upstream."""
    info = ProviderInfo(name="Idle", label="Idle", ready=False, missing="all")
    async with FakeUpstream() as upstream:
        yield FakeStage(upstream, Announced(info, ProviderNotConfigured, ""))


@pytest.mark.parametrize("stream", [True, False])
async def test_hanging_up_is_not_waited_for_without_a_call(stage: FakeStage, stream: bool) -> None:
    with pytest.raises(Failed, match="not called its upstream"):
        await Impatient().test_closing_the_generator_ends_the_upstreams_work(stage, stream)


async def test_two_answers_are_not_waited_for_without_a_call(stage: FakeStage) -> None:
    with pytest.raises(Failed, match="not called its upstream"):
        await Impatient().test_two_answers_at_once_do_not_mix(stage)
