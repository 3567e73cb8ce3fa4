"""The mark ``releases``: which tests run on a release beside the usual three (tests/releases.py)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.releases import USUAL, selects

ROOT = Path(__file__).parents[3]


def test_a_test_without_a_mark_runs_on_the_usual_releases_alone() -> None:
    assert all(selects(release, []) for release in USUAL)
    assert not selects("2026.2.26", [])


def test_a_mark_adds_the_releases_that_it_names() -> None:
    marks = [pytest.mark.releases("2026.2.26", "2026.7.1").mark]
    assert all(selects(release, marks) for release in (*USUAL, "2026.2.26", "2026.7.1"))
    assert not selects("2026.5.22", marks)


def test_only_leaves_out_all_that_it_does_not_name() -> None:
    marks = [pytest.mark.releases("2026.2.26", "2026.9.6", only=True).mark]
    assert [selects(release, marks) for release in ("2026.2.26", "2026.9.6", "2026.2.12")] == [
        True,
        True,
        False,
    ]


def test_make_test_gateways_runs_the_usual_releases() -> None:
    found = re.search(r"^OPENCLAW_RELEASES := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found is not None
    assert tuple(found[1].split()) == USUAL
