"""What the relay tells of itself as it happens, for operators who watch. Nothing depends on it."""

from collections.abc import Callable, Mapping

Facts = Mapping[str, object]
"""What a JSON object can say; never a secret."""
Told = Facts | Callable[[], Facts]
"""Facts, or what makes them once somebody listens: mostly nobody does."""
Tell = Callable[[str, Told], None]
"""Takes a kind of event and its facts; returns at once, and never raises."""


def facts_of(told: Told) -> Facts:
    """The facts, made if need be."""
    return told() if callable(told) else told


def to_nobody(kind: str, told: Told) -> None:
    """Tell nobody."""
