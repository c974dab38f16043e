"""What the relay tells of itself as it happens, for operators who watch. Nothing depends on it."""

from collections.abc import Callable, Mapping

Facts = Mapping[str, object]
"""What a JSON object can say; never a secret."""
Tell = Callable[[str, Facts], None]
"""Takes a kind of event and its facts; returns at once, and never raises."""


def to_nobody(kind: str, facts: Facts) -> None:
    """Tell nobody."""
