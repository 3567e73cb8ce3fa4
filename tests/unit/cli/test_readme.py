"""The README says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.cli.test_help import EXPECTED
from worker.settings import Settings

README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_in_the_table_with_its_default(name: str) -> None:
    field = Settings.model_fields[name]
    row = re.search(rf"^\| `{name.upper()}` \| (.+?) \|", README, re.MULTILINE)
    assert row is not None
    if field.is_required():
        assert row[1].startswith("required")
    else:
        assert row[1].strip("`") == ("none" if field.default is None else str(field.default))


def test_only_commands_that_exist_are_named() -> None:
    named = set(re.findall(r"(?:^ {4}|`)provisioner ([a-z]+)", README, re.MULTILINE))
    assert named <= EXPECTED
    assert {"demo", "migrate", "provision", "jobs", "job", "doctor"} <= named


def test_it_stays_short_enough_to_be_read() -> None:
    assert README.count("\n") < 200
