"""Reads Bedrock's lists of models, and of the profiles that stand for models in several regions."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec import Struct

from modelway.errors import UpstreamProtocolError
from modelway.types import Model

T = TypeVar("T")


class _Lifecycle(Struct):
    status: str = ""


class _Foundation(Struct):
    modelId: str  # noqa: N815
    providerName: str | None = None  # noqa: N815
    inferenceTypesSupported: list[str] | None = None  # noqa: N815
    modelLifecycle: _Lifecycle | None = None  # noqa: N815


class _Foundations(Struct):
    modelSummaries: list[_Foundation]  # noqa: N815


class _Profile(Struct):
    inferenceProfileId: str  # noqa: N815
    status: str = ""


class _Profiles(Struct):
    inferenceProfileSummaries: list[_Profile]  # noqa: N815
    nextToken: str | None = None  # noqa: N815


def decode_models(body: bytes) -> list[Model]:
    """The models that are served on demand."""
    return [
        Model(id=one.modelId, owned_by=(one.providerName or "").lower())
        for one in _decoded(body, _Foundations).modelSummaries
        if "ON_DEMAND" in (one.inferenceTypesSupported or ())
        and one.modelLifecycle is not None
        and one.modelLifecycle.status == "ACTIVE"
    ]


def decode_profiles(body: bytes) -> tuple[list[Model], str]:
    """The profiles of a page, which are named like models, and the token of the next page."""
    page = _decoded(body, _Profiles)
    active = [one for one in page.inferenceProfileSummaries if one.status == "ACTIVE"]
    return [Model(id=one.inferenceProfileId) for one in active], page.nextToken or ""


def _decoded(body: bytes, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamProtocolError("the upstream's list of models cannot be read") from error
