"""Fixtures of the relay's unit tests."""

import pytest

from tests.turn.world import World


@pytest.fixture
def world() -> World:
    """An engine with the default limits."""
    return World()
