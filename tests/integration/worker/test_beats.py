"""Schedules with real beats: two of them, one that was stopped, one whose host's clock is wrong or jumps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.integration.agents.fleet import execute, one
from tests.integration.worker.workshop import Workshop
from tests.worker_process import BeatProcess
from worker.jobs.requests import SyncGateway
from worker.jobs.schedule_spec import ScheduleSpec
from worker.jobs.schedules import add

GATEWAYS = 6
ROUNDS = 4
HOUR_S = 3600.0
EVERY = timedelta(days=200)


class Scene:
    """A workshop with one worker, and beats; each gateway has a schedule that is never due by chance."""

    def __init__(self, workshop: Workshop, folder: Path) -> None:
        self.workshop = workshop
        self.folder = folder
        self.clock = folder / "clock"
        self.clock.write_text("0")
        self.beats: list[BeatProcess] = []
        place = workshop.place("2026.9.6")
        url, token = place.proxy.url, place.simulator.token
        keys = [place.fleet.add_gateway(f"of beats {n}", url, token) for n in range(GATEWAYS)]
        with workshop.engine.begin() as connection:
            for key in keys:
                request = SyncGateway(gateway_id=key, include_main=False)
                add(connection, request, ScheduleSpec(every=EVERY))
        workshop.start_worker()

    def beat(self) -> BeatProcess:
        """One more beat on this host."""
        settings = {**self.workshop.environment, "CLOCK_OFF_BY": str(self.clock)}
        log = self.folder / f"beat-{len(self.beats)}.log"
        self.beats.append(BeatProcess(log, settings, app="tests.integration.worker.hasty_beat"))
        return self.beats[-1]

    def stop_beats(self) -> None:
        while self.beats:
            self.beats.pop().kill()

    def make_due(self, ago_s: float = 0) -> None:
        execute(self.workshop.engine, _MAKE_DUE, ago_s=ago_s)

    def jobs(self) -> int:
        return int(one(self.workshop.engine, "SELECT count(*) FROM provisioner.jobs")[0])

    def all_ran(self, runs: int) -> None:
        """Wait until so many runs of each schedule have ended; there is none more, and none failed."""
        wanted = GATEWAYS * runs
        self.workshop.eventually(
            lambda: one(self.workshop.engine, _SUCCEEDED)[0] >= wanted, lambda: f"{self.jobs()} jobs"
        )
        assert self.jobs() == wanted


@pytest.fixture
def scene(open_workshop: Callable[[], Workshop], tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(open_workshop(), tmp_path)
    yield scene
    scene.stop_beats()


def test_two_beats_make_each_due_sync_once_and_never_two_at_a_time(scene: Scene) -> None:
    first, second = scene.beat(), scene.beat()
    for n in range(ROUNDS):
        scene.make_due()
        scene.all_ran(n + 1)
    assert first.running
    assert second.running
    assert one(scene.workshop.engine, _AT_ONCE)[0] == 0
    assert one(scene.workshop.engine, _FEWEST)[0] == ROUNDS
    assert one(scene.workshop.engine, _PRUNED).runs == 1
    assert "Traceback" not in first.log() + second.log() + scene.workshop.logs()


def test_what_was_due_while_no_beat_ran_is_made_once(scene: Scene) -> None:
    scene.beat()
    scene.make_due()
    scene.all_ran(1)
    scene.stop_beats()
    scene.make_due(ago_s=5.5 * EVERY.total_seconds())
    before = one(scene.workshop.engine, "SELECT now() AS now").now
    scene.beat()
    scene.all_ran(2)
    late = one(scene.workshop.engine, "SELECT min(next_run_at) AS at FROM provisioner.sync_schedules").at
    assert late > before, "the next run is one that is to come, not the next of those missed"


@pytest.mark.parametrize("off_by_s", [-3 * HOUR_S, 3 * HOUR_S])
def test_a_beat_whose_clock_is_wrong_and_jumps_is_heard_all_the_same(scene: Scene, off_by_s: float) -> None:
    scene.clock.write_text(str(off_by_s))
    scene.beat()
    scene.make_due()
    scene.all_ran(1)
    scene.clock.write_text(str(-off_by_s))
    scene.make_due()
    scene.all_ran(2)
    scene.clock.write_text(str(off_by_s))
    scene.make_due()
    scene.all_ran(3)


_MAKE_DUE = "UPDATE provisioner.sync_schedules SET next_run_at = now() - make_interval(secs => :ago_s)"
_SUCCEEDED = "SELECT count(*) FROM provisioner.jobs WHERE status = 'succeeded'"
_PRUNED = "SELECT count(*) AS runs FROM provisioner.upkeep WHERE last_run_at IS NOT NULL"
_AT_ONCE = """
    SELECT count(*) FROM provisioner.jobs a JOIN provisioner.jobs b
        ON a.gateway_id = b.gateway_id AND a.id <> b.id
        AND a.started_at < b.finished_at AND b.started_at < a.finished_at
"""
_FEWEST = "SELECT min(n) FROM (SELECT count(*) AS n FROM provisioner.jobs GROUP BY gateway_id) runs"
