"""The deeds that are timed, in the order in which one fleet goes through them: from its provision to its
delete."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from tests.benchmarks.bench import AwayClock, Bench
from tests.benchmarks.way import ALL, ONE, Templates, Way, timed

DEEDS = {
    "provision": "first provision",
    "unchanged": "sync, nothing changed",
    "one": "sync, one template changed",
    "all": "sync, all templates changed",
    "rotate": "rotation of all tokens",
    "singles": "a request for each, all at once",
    "delete": "delete of all",
}
"""What each deed is called in tables."""
QUIET_S = 2.0
"""Seconds between two deeds, so that what a gateway still does for one is not counted in the next."""


def cycle(way: Way, bench: Bench, templates: Templates, agents: int) -> Iterator[tuple[str, float]]:
    """Have a way do all deeds for so many new agents; the names of the deeds, and the seconds that each took.

    The seconds for which the gateway lets nobody in because it restarts are left out.
    """
    ids = bench.agents(agents)
    yield "provision", _beside_restarts(bench, lambda: way.provision(ids))
    yield "unchanged", _after_a_rest(way.sync)
    for name, files in (("one", ONE), ("all", ALL)):
        templates.change(files)
        yield name, _after_a_rest(way.sync)
    yield "rotate", _after_a_rest(way.rotate)
    templates.change(ONE)
    yield "singles", _after_a_rest(way.singles)
    yield "delete", _beside_restarts(bench, way.delete)
    bench.forget(ids)


def _after_a_rest(deed: Callable[[], None]) -> float:
    time.sleep(QUIET_S)
    return timed(deed)


def _beside_restarts(bench: Bench, deed: Callable[[], None]) -> float:
    time.sleep(QUIET_S)
    with AwayClock(bench.address) as away:
        took_s = timed(deed)
    return took_s - away.away_s
