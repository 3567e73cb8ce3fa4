"""How ``pytest -n`` distributes the tests: those that share something slow to start run in one process."""

from __future__ import annotations

import re

from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

LONGEST_FIRST = (
    "tests/acceptance",
    "tests/integration/worker/test_broker_away",
    "tests/integration/cli/test_serve",
    "tests/integration/sync/test_wrong_answers",
    "tests/integration/worker",
    "tests/conformance",
    "tests/model",
    "tests/integration/sync",
    "tests/integration/deploy",
    "tests/smoke",
    "tests/integration/agents",
    "tests/integration/cli",
    "tests/integration",
)
"""The order of the tests, by folder or file: the longest start first, so that none is left at the end."""
LONG_ACTS = re.compile(r"tests/acceptance/test_(sync|contention|many_writers|token_rotation)\.py")
"""Acceptance tests of the large batch, which take half the time on a real release: a second gateway's."""
_TARGET = re.compile(r"\b(?:sim|openclaw):[\d.]+")


def shared_by(nodeid: str) -> str:
    """The key of the tests that must share a process: their folder and their gateway's release, or else their
    file. The acceptance tests have two gateways of each real release."""
    file, _, name = nodeid.partition("::")
    target = _TARGET.search(name)
    if target is None:
        return file
    apart = " long acts" if target[0].startswith("openclaw:") and LONG_ACTS.fullmatch(file) else ""
    return f"{file.rpartition('/')[0]} {target[0]}{apart}"


def place_in_line(nodeid: str) -> int:
    """The sort key of a test: its index in LONGEST_FIRST. Tests with equal keys keep their order."""
    return next((n for n, start in enumerate(LONGEST_FIRST) if nodeid.startswith(start)), len(LONGEST_FIRST))


class SharedFixtureScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Runs all tests with the same `shared_by` in one process, in the order of collection."""

    def _split_scope(self, nodeid: str) -> str:
        return shared_by(nodeid)
