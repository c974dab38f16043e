"""The reference pages say what the code says now."""

import pytest

from config.schema import Settings
from tests.guides import reference


@pytest.mark.parametrize(("name", "text"), reference.pages().items())
def test_a_page_is_what_the_code_makes_of_it(name: str, text: str):
    assert (reference.PAGES / name).read_text("utf-8") == text, "run: make docs"


def test_every_setting_is_on_its_page():
    text = reference.settings()
    for name in Settings.model_fields:
        for key in type(getattr(Settings(), name)).model_fields:
            assert f"**`{name}.{key}`**" in text
