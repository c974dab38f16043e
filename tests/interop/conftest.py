"""The fixture ``connect`` for tests of other clients."""

from tests.turn.conftest import connect

__all__ = ["connect"]
