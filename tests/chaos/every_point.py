"""One failure at each point of a deed in turn; each must end as an undisturbed run does."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.chaos.broken_scene import BrokenScene, Scenes, gateways_of
from tests.chaos.deeds import Deed
from tests.chaos.oracle import State, differences, left_open, state_of, untrue_results, woken_twice
from tests.chaos.points import Counted, Failing, Point


@dataclass(frozen=True)
class Undisturbed:
    """What a deed leaves when nothing fails, and how often it does what can fail."""

    state: State
    counted: Counted

    @property
    def points(self) -> list[Point]:
        return self.counted.points()


@dataclass
class Run:
    """A deed with one failure. ``happened``: the point was reached; ``faults``: what the oracle found."""

    point: Point
    happened: bool
    deaths: int
    faults: list[str] = field(default_factory=list)


def undisturbed(scenes: Scenes, deed: Deed, release: str) -> Undisturbed:
    """Do the deed without a failure. Raises AssertionError if even so the oracle finds something."""
    with scenes.open(release) as scene:
        failing = _do(scene, deed, None)
        state = state_of(scene.engine, gateways_of(scene))
        faults = _faults(scene, state)
        assert not faults, faults
        return Undisturbed(state, failing.counted)


def run_at(scenes: Scenes, deed: Deed, release: str, point: Point, expected: State) -> Run:
    """Do the deed with a failure at the point, and go on until all has ended."""
    with scenes.open(release) as scene:
        try:
            failing = _do(scene, deed, point)
        except AssertionError as error:
            return Run(point, True, scene.deaths, [str(error)])
        return Run(point, failing.happened, scene.deaths, _faults(scene, expected))


def sample(points: Sequence[Point], count: int, seed: str) -> list[Point]:
    """``count`` of the points, or all if they are fewer, the same ones for each seed."""
    if len(points) <= count:
        return list(points)
    return random.Random(seed).sample(points, count)


def _do(scene: BrokenScene, deed: Deed, point: Point | None) -> Failing:
    prepared = deed.prepare(scene)
    failing = Failing(scene.engine, scene.simulator, point)
    scene.failing = failing
    with failing.watched():
        deed.ask(scene, prepared)
        scene.work_on()
    scene.failing = None
    return failing


def _faults(scene: BrokenScene, expected: State) -> list[str]:
    found = differences(expected, state_of(scene.engine, gateways_of(scene)))
    found += left_open(scene.engine) + untrue_results(scene.engine) + woken_twice([scene.simulator])
    with scene.engine.connect() as connection:
        failed = connection.exec_driver_sql(
            "SELECT kind, status, error FROM provisioner.jobs WHERE status <> 'succeeded'"
        )
        found += [f"{row.kind} {row.status}: {row.error}" for row in failed]
    return found
