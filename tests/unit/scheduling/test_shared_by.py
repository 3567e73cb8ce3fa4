"""Tests that share a gateway or a module's fixtures run in one process (tests/scheduling.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scheduling import LONGEST_FIRST, place_in_line, shared_by


def test_all_tests_of_a_folder_on_one_gateway_stay_together() -> None:
    first = shared_by("tests/acceptance/test_a.py::test_x[sim:2026.2.12]")
    assert shared_by("tests/acceptance/test_b.py::test_y[sim:2026.2.12-arguments0-a: sentence]") == first
    assert shared_by("tests/acceptance/test_a.py::test_x[sim:2026.9.6]") != first
    assert shared_by("tests/conformance/test_a.py::test_x[sim:2026.2.12]") != first


def test_the_acceptance_tests_of_a_real_release_are_shared_out_between_two_gateways() -> None:
    names = ["provision", "update", "sync", "token_rotation", "contention", "many_writers"]
    files = [Path(f"tests/acceptance/test_{name}.py") for name in names]
    assert all((Path(__file__).parents[3] / file).is_file() for file in files)
    for release, gateways in (("openclaw:2026.9.6", 2), ("sim:2026.9.6", 1)):
        assert len({shared_by(f"{file}::test_x[{release}]") for file in files}) == gateways


@pytest.mark.parametrize("name", ["test_x", "test_x[2026.9.6]", "test_x[wss://sim.example:443]"])
def test_others_stay_with_their_file(name: str) -> None:
    assert shared_by(f"tests/unit/a/test_a.py::{name}") == "tests/unit/a/test_a.py"


def test_the_longest_come_first_and_each_place_is_there() -> None:
    names = ["tests/unit/a/test_a.py::x", "tests/integration/b.py::y", "tests/acceptance/c.py::z"]
    assert sorted(names, key=place_in_line) == names[::-1]
    root = Path(__file__).parents[3]
    assert [
        place for place in LONGEST_FIRST if not ((root / place).is_dir() or (root / f"{place}.py").is_file())
    ] == []
