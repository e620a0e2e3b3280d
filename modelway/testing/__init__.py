"""For the tests of plug-ins: the contract of providers, and an upstream on loopback that plays scripts.

Only this package imports pytest, which Modelway itself does not need.
"""

import pytest

pytest.register_assert_rewrite("modelway.testing.provider_contract")

from modelway.bench.faulty import FaultyUpstream, Heard  # noqa: E402
from modelway.testing.fake_upstream import FakeUpstream  # noqa: E402
from modelway.testing.provider_contract import ProviderContract, UpstreamContract  # noqa: E402
from modelway.testing.stage import FakeStage, OpenStage, Stage, plugin_context, stage_of  # noqa: E402

__all__ = [
    "FakeStage",
    "FakeUpstream",
    "FaultyUpstream",
    "Heard",
    "OpenStage",
    "ProviderContract",
    "Stage",
    "UpstreamContract",
    "plugin_context",
    "stage_of",
]
