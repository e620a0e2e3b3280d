"""A local gateway to language models that remembers the conversation."""

from modelway._version import __version__

__all__ = ["__version__"]
