"""How ``pytest -n`` spreads the tests: those that share what took long to start stay together."""

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
"""What takes long to end is begun first, so that no process is left with it at the end."""
LONG_ACTS = re.compile(r"tests/acceptance/test_(sync|rotation|contention|many_writers)\.py")
"""Half of what acceptance takes on a real release: worth a gateway of its own, as most of it is waiting."""
_TARGET = re.compile(r"\b(?:sim|openclaw):[\d.]+")


def shared_by(nodeid: str) -> str:
    """What a test shares with others: its folder's gateway of one release, else its file. A real release has
    two gateways for the acceptance tests."""
    file, _, name = nodeid.partition("::")
    target = _TARGET.search(name)
    if target is None:
        return file
    apart = " long acts" if target[0].startswith("openclaw:") and LONG_ACTS.fullmatch(file) else ""
    return f"{file.rpartition('/')[0]} {target[0]}{apart}"


def place_in_line(nodeid: str) -> int:
    """By which all tests are put in order; those of one place keep theirs."""
    return next((n for n, start in enumerate(LONGEST_FIRST) if nodeid.startswith(start)), len(LONGEST_FIRST))


class Together(LoadScopeScheduling):  # type: ignore[misc]
    """One process for all tests that share something, in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return shared_by(nodeid)
