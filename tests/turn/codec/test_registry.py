"""The tables of methods, attributes and error codes."""

import pytest

from turn.codec import registry
from turn.codec.errors import REASONS, StunError
from turn.codec.registry import ATTRIBUTES, Attribute


def test_each_number_and_name_is_there_once():
    rows = [row for row in vars(registry).values() if isinstance(row, Attribute)]
    assert len(rows) == len(ATTRIBUTES) == len({row.name for row in rows})


def test_constants_are_called_as_the_rfcs_call_them():
    for constant, row in vars(registry).items():
        if isinstance(row, Attribute):
            assert constant == row.name.replace("-", "_")
            assert repr(row) == row.name


@pytest.mark.parametrize(
    ("attribute", "required"),
    [(registry.USERHASH, True), (registry.SOFTWARE, False), (registry.PASSWORD_ALGORITHMS, False)],
)
def test_comprehension(attribute: Attribute[object], required):
    assert attribute.comprehension_required is required


@pytest.mark.parametrize("code", REASONS)
def test_every_error_code_has_its_reason(code):
    """Short ones: a reply to an unproved address must not be longer than need be."""
    error = StunError(code)
    assert (error.code, error.attributes) == (code, ())
    assert 0 < len(error.reason) < 32
    assert 300 <= code <= 699
