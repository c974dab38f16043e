"""What a name says of when its credentials end."""

import pytest

from turn.auth.ephemeral import expiry_of, mint


@pytest.mark.parametrize(
    ("username", "expected"),
    [
        (mint("secret", "anna", 1_763_720_000)[0], 1_763_720_000),
        ("1763720000:", 1_763_720_000),
        ("1763720000", 0),
        ("anna", 0),
        ("anna:1763720000", 0),
        (":third party", 0),
        ("-5:anna", 0),
        ("\u0661\u0662:anna", 0),
        ("9" * 400 + ":anna", int("9" * 20)),
    ],
)
def test_the_expiry_of_a_name(username: str, expected: int) -> None:
    assert expiry_of(username) == expected
