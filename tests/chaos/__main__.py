"""``make chaos``: every scenario once, then failures at points that the seed chooses.

What was played is noted in .chaos/record.jsonl. ``FULL=1`` plays each several times with more agents, and
takes all points, in parts: a later run goes on with the scenarios that have no note yet. ``SEED=n`` plays
with that seed, ``ONLY=words`` the scenarios with these words in their names.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.oracle import State
from tests.chaos.record import Played, note, read
from tests.chaos.scenario import Scenario
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.stage import open_stage
from tests.worker_process import QUICK_ROUNDS
from worker.lab.servers import LocalServices
from worker.workspace import tokens

PART_S = 30 * 60.0
"""Seconds after which a full run begins nothing more; the next one goes on."""
LONGEST_SHOWN = 5
POINTS = 8
"""Points of each deed on each release, of a run that is not full."""


class Expected:
    """What an undisturbed commission leaves, by its size; each is done once."""

    def __init__(self, services: LocalServices, folder: Path) -> None:
        self._services, self._folder = services, folder
        self._states: dict[tuple[int, tuple[str, ...]], State] = {}

    def of(self, scenario: Scenario, agents: int) -> State | None:
        if not scenario.compares:
            return None
        key = (agents, tuple(scenario.releases))
        if key not in self._states:
            name = f"plain_{len(self._states)}"
            folder = self._folder / name
            with open_stage(
                self._services, folder, name, agents=agents, seed="0", releases=scenario.releases
            ) as stage:
                stage.commission()
                self._states[key] = stage.state()
                faults = stage.verdict(self._states[key])
            if faults:
                raise SystemExit(f"Without any chaos something is wrong already: {'; '.join(faults)}")
        return self._states[key]


def play(
    services: LocalServices,
    folder: Path,
    scenario: Scenario,
    seed: str,
    agents: int,
    expected: State | None,
    *,
    full: bool,
) -> Played:
    """Play a scenario, and have the oracle look."""
    began = time.monotonic()
    name = f"chaos_{secrets.token_hex(4)}"
    with open_stage(
        services,
        folder / name,
        name,
        agents=agents,
        seed=f"{scenario.name} {seed}",
        releases=scenario.releases,
        workers=scenario.workers,
        timings=scenario.timings,
    ) as stage:
        try:
            scenario.play(stage)
            faults = stage.verdict(expected)
        except AssertionError as error:
            faults = [str(error)]
        return Played(scenario.name, seed, agents, time.monotonic() - began, stage.broken, faults, full)


def main() -> int:
    full = bool(os.environ.get("FULL"))
    seed = os.environ.get("SEED") or str(secrets.randbelow(10_000))
    chosen = [each for each in SCENARIOS if os.environ.get("ONLY", "") in each.name]
    if not chosen:
        print(f"No scenario has {os.environ['ONLY']!r} in its name: {', '.join(s.name for s in SCENARIOS)}")
        return 2
    lacks = {each.name: each.lacks() for each in chosen}
    chosen = [each for each in chosen if not lacks[each.name]]
    print(f"Seed {seed}. The same again: make chaos SEED={seed}", flush=True)
    tokens.ROUNDS = QUICK_ROUNDS  # as few as in the workers of tests
    played = []
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalServices(Path(folder) / "services", durable=False) as own,
    ):
        expected = Expected(own, Path(folder))
        for scenario, number, agents in _runs(chosen, full=full):
            plain = expected.of(scenario, agents)
            one = play(own, Path(folder), scenario, f"{seed}.{number}", agents, plain, full=full)
            _tell(one)
            played.append(one)
            note(one)
    lost = [one for one in played if one.faults]
    points = 0 if os.environ.get("ONLY") else _every_point(seed, full=full)
    print(
        f"{len(played)} scenarios, {sum(one.broken for one in played)} things broken,"
        f" {len(lost)} scenarios with losses{'' if not points else ', and losses at points'}."
    )
    longest = sorted(played, key=lambda one: one.took_s, reverse=True)[:LONGEST_SHOWN]
    print(
        f"They took {sum(one.took_s for one in played) / 60:.1f} min, and of that the longest:"
        f" {', '.join(f'{one.name} {one.took_s:.0f} s' for one in longest)}."
    )
    for name, why in lacks.items():
        if why:
            print(f"NOT RUN: {name}, because {why}")
    return 1 if lost or points else 0


def _runs(scenarios: list[Scenario], *, full: bool) -> Iterator[tuple[Scenario, int, int]]:
    """What is to be played: scenario, number of the run, agents on each gateway."""
    if not full:
        yield from (
            (each, 0, each.agents) for each in scenarios if not each.only_full or "ONLY" in os.environ
        )
        return
    noted = [one for one in read().played if one.full and not one.faults]
    done = {(one.name, int(one.seed.rpartition(".")[2])) for one in noted}
    until = time.monotonic() + PART_S
    for number in range(max((scenario.full_runs for scenario in scenarios), default=0)):
        for scenario in scenarios:
            if number < scenario.full_runs and (scenario.name, number) not in done:
                if time.monotonic() > until:
                    print("This part is over: run the same again for the rest.")
                    return
                yield scenario, number, scenario.full_agents


def _tell(one: Played) -> None:
    verdict = "nothing lost" if not one.faults else f"{len(one.faults)} FAULTS"
    print(f"{one.name:<28} {one.broken:>4} broken  {one.took_s:6.1f} s  {verdict}", flush=True)
    for fault in one.faults[:20]:
        print(f"    {fault}")
    if one.faults:
        number = one.seed.partition(".")[0]
        print(f"    again: make chaos SEED={number} ONLY='{one.name}'", flush=True)


def _every_point(seed: str, *, full: bool) -> int:
    """One failure at each point; returns pytest's exit code."""
    environment = {**os.environ, "SEED": seed, "POINTS": str(POINTS)}
    if not full:
        environment.pop("FULL", None)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "tests/chaos/test_every_point.py"]
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
