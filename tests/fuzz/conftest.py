"""The fixtures of the relay's own tests serve here too."""

from tests.turn.conftest import connect

__all__ = ["connect"]
