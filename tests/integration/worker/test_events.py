"""What Flower hears of our jobs: Celery's own view of the events, as Flower keeps it (celery.md 3)."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from celery import Celery
from celery.events.state import State

from tests.integration.agents.fleet import execute
from tests.integration.worker.planting import plant
from tests.integration.worker.workshop import Workshop
from worker.lab.simulator import Fault
from worker.lab.simulator.faults import Refuse

INSIDE = ("finish_sync", "sync_agent")
"""Tasks whose ids are no job's."""


class Watch:
    """Celery's State, fed by all events; ``seen``: what it said of each task, one after another."""

    def __init__(self, redis_url: str) -> None:
        self.state: Any = State()
        self.seen: dict[str, list[tuple[str, Any]]] = {}
        self.ready = threading.Event()
        self.over = threading.Event()
        self._app = Celery(broker=redis_url)
        self._thread = threading.Thread(target=self._run, daemon=True)

    @contextmanager
    def watching(self) -> Iterator[Watch]:
        self._thread.start()
        try:
            assert self.ready.wait(60)
            yield self
        finally:
            self.over.set()
            self._thread.join(10)
            self._app.close()

    def _run(self) -> None:
        with self._app.connection() as connection:
            receiver = self._app.events.Receiver(connection, handlers={"*": self._hear})
            # One consumer for all: between two nobody would hear.
            for _ in receiver.consume(limit=None, timeout=None, wakeup=False):
                self.ready.set()
                if self.over.is_set():
                    return

    def _hear(self, event: dict[str, Any]) -> None:
        self.ready.set()
        self.state.event(event)
        key = str(event.get("uuid"))
        if key in self.state.tasks:
            task = self.state.tasks[key]
            said = task.exception if task.state in ("FAILURE", "RETRY") else task.result
            self.seen.setdefault(key, []).append((task.state, said))


def test_flower_sees_a_sync_go_on_and_end_with_its_result(open_workshop: Callable[[], Workshop]) -> None:
    workshop = open_workshop()
    place = workshop.place("2026.9.6", agents=30)
    plant(place, place.fleet.agents)
    watch = Watch(workshop.redis_url)
    workshop.start_worker()
    with watch.watching():

        def ended(job_id: UUID, state: str) -> list[tuple[str, Any]]:
            seen = watch.seen.get(str(job_id), [])
            return seen if seen and seen[-1][0] == state else []

        good = workshop.ask("sync_gateway", gateway_id=place.fleet.gateway_id, include_main=False)
        told = workshop.eventually(lambda: ended(good, "SUCCESS"), lambda: str(watch.seen.get(str(good))))
        progress = [what for state, what in told if state == "PROGRESS"]
        on_the_way = [re.fullmatch(r"(\d+) of 30 agents", str(what)) for what in progress]
        assert {int(match[1]) for match in on_the_way if match} & set(range(1, 30))
        assert "30 updated (0 needed nothing)" in told[-1][1]

        nobodys = [workshop.ask(task, job_id=UUID(int=1), agent_id=UUID(int=2)) for task in INSIDE]
        wrong = workshop.ask("finish_sync")

        def open_tasks() -> list[tuple[str, str]]:
            tasks = [watch.state.tasks.get(str(key)) for key in (*nobodys, wrong)]
            assert len(watch.state.tasks) > 30
            others = [task for task in watch.state.tasks.values() if task.name in ("tasks.finish_sync",)]
            names = [(getattr(task, "name", "?"), getattr(task, "state", "?")) for task in (*tasks, *others)]
            return [(name, state) for name, state in names if state not in ("SUCCESS", "FAILURE")]

        workshop.eventually(lambda: not open_tasks(), lambda: str(open_tasks()), 20)
        assert {watch.state.tasks[str(key)].result for key in nobodys} == {"'nothing to do'"}
        assert watch.state.tasks[str(wrong)].state == "FAILURE"
        assert "Traceback" not in workshop.logs()

        execute(workshop.engine, "UPDATE agents SET soul_template = '{{ nobody }}'")
        bad = workshop.ask("sync_gateway", gateway_id=place.fleet.gateway_id, include_main=False)
        told = workshop.eventually(lambda: ended(bad, "FAILURE"), lambda: str(watch.seen.get(str(bad))))
        assert "Of 30 agents 30 failed." in told[-1][1]
        assert any("30 of 30 agents, 30 failed" in str(what) for _, what in told)


def test_flower_sees_why_a_job_is_tried_again_and_why_it_failed(
    open_workshop: Callable[[], Workshop],
) -> None:
    workshop = open_workshop()
    place = workshop.place("2026.9.6")
    refusal = Refuse("gateway starting; retry shortly", retryable=True, retry_after_ms=100)
    place.simulator.faults.schedule(Fault(refusal, "connect", times=None))
    watch = Watch(workshop.redis_url)
    workshop.start_worker(RETRY_TIMEOUT_S="2")
    with watch.watching():
        job = str(workshop.send(place.fleet.agents[0]))

        def told() -> list[tuple[str, Any]]:
            seen = watch.seen.get(job, [])
            return seen if seen and seen[-1][0] == "FAILURE" else []

        seen = workshop.eventually(told, lambda: str(watch.seen.get(job)))
    retries = [str(what) for state, what in seen if state == "RETRY"]
    assert any("gateway starting" in reason for reason in retries), seen
    assert "unreachable for 2 seconds" in str(seen[-1][1])


def test_flower_sees_every_job_of_a_batch_succeed(open_workshop: Callable[[], Workshop]) -> None:
    """Those too that end in the turn of the one that wakes them all."""
    workshop = open_workshop()
    place = workshop.place("2026.9.6", agents=12)
    watch = Watch(workshop.redis_url)
    worker = workshop.start_worker()
    with watch.watching():
        jobs = [str(workshop.send(agent)) for agent in place.fleet.agents]

        def all_told() -> bool:
            return all(watch.seen.get(job, [("", None)])[-1][0] == "SUCCESS" for job in jobs)

        workshop.eventually(all_told, lambda: str({job: watch.seen.get(job) for job in jobs}))
    by_another = worker.log().count("succeeded") - worker.log().count("woken")
    assert by_another > 0, "nobody was woken by another"
    assert len({watch.state.tasks[job].worker.hostname for job in jobs}) == 1
