"""The sample configuration shows every option, at its default, and nothing else."""

import re
import tomllib
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo

from config.load import load
from config.schema import Settings
from config.section import Section

SAMPLE = Path(__file__).parents[2] / "config" / "icebroker.toml"


def sections() -> dict[str, Section]:
    return {name: getattr(Settings(), name) for name in Settings.model_fields}


def options() -> dict[str, FieldInfo]:
    return {
        f"{name}.{key}": field
        for name, section in sections().items()
        for key, field in type(section).model_fields.items()
    }


def test_the_sample_says_what_holds_without_it():
    assert load(SAMPLE, environment={}) == Settings()


def test_the_sample_has_every_option_in_the_order_of_the_schema():
    sample = tomllib.loads(SAMPLE.read_text("utf-8"))
    shown = [f"{name}.{key}" for name, section in sample.items() for key in section]
    assert shown == list(options())


def test_every_option_of_the_sample_has_a_comment_above_it():
    # Several that belong together (a certificate and its key) may stand below one comment.
    paragraphs = re.split(r"\n\s*\n", SAMPLE.read_text("utf-8"))
    settings = [text for text in paragraphs if re.search(r"(?m)^\w+ = ", text)]
    assert len(settings) > 40
    for text in settings:
        assert text.startswith("# "), text


@pytest.mark.parametrize("name", options())
def test_every_option_of_the_schema_has_a_description(name: str):
    assert options()[name].description


def test_no_line_of_the_sample_is_long():
    assert max(map(len, SAMPLE.read_text("utf-8").splitlines())) <= 100
