"""What a scenario of chaos is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.chaos.stage import Stage
from tests.integration.worker.workshop import RELEASES
from worker.lab.simulator import Timings
from worker.lab.simulator.timings import QUICK


@dataclass(frozen=True)
class Scenario:
    """``play`` does the stage's commission while it breaks things, and counts in ``Stage.broken`` what it has
    broken.

    ``agents``: how many on each gateway; ``full_agents``: the same in a full run; ``full_runs``: how often a
    full run plays it, each time with another seed; ``only_full``: other runs leave it out; ``compares``: it
    does the commission, so that the end is compared with that of an undisturbed one; ``lacks``: sees to what
    it needs on this machine, and says why it cannot be played here, if so.
    """

    name: str
    play: Callable[[Stage], None]
    agents: int = 12
    full_agents: int = 100
    full_runs: int = 3
    workers: int = 2
    releases: Sequence[str] = RELEASES
    timings: Timings = QUICK
    only_full: bool = False
    compares: bool = True
    lacks: Callable[[], str | None] = lambda: None

    @property
    def breaks(self) -> str:
        """What is broken, in a paragraph."""
        return " ".join((self.play.__doc__ or "").partition("\n\n")[0].split())
