"""Syncs that are interrupted: by workers that die, by gateways that are away (decisions.md D5, D7)."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.integration.agents.fleet import execute, one
from tests.integration.worker.planting import plant
from tests.integration.worker.workshop import Place, Workshop


def sync(workshop: Workshop, place: Place, **options: Any) -> UUID:
    return workshop.ask("sync_gateway", gateway_id=place.fleet.gateway_id, include_main=False, **options)


def statuses(workshop: Workshop, job_id: UUID) -> Counter[str]:
    with workshop.engine.connect() as connection:
        rows = connection.execute(_STATUSES, {"job_id": job_id})
        return Counter({row.status: row.agents for row in rows})


def done(workshop: Workshop, job_id: UUID) -> int:
    return int(one(workshop.engine, _DONE, id=job_id)[0] or 0)


def test_a_run_whose_workers_are_killed_five_times_ends_as_an_undisturbed_one(
    open_workshop: Callable[[], Workshop], pytestconfig: pytest.Config
) -> None:
    """``--agents`` makes the run as long as you like; only a few of them are open at a time."""
    agents: int = pytestconfig.getoption("--agents")
    workshop = open_workshop()
    place = workshop.place("2026.9.6", agents=agents)
    plant(place, place.fleet.agents)
    worker = workshop.start_worker(LEASE_S="1.5")
    job_id = sync(workshop, place)
    for kill in range(5):
        wanted = (1 + kill) * agents // 7
        workshop.eventually(
            lambda wanted=wanted: done(workshop, job_id) >= wanted,  # type: ignore[misc]
            lambda: f"{done(workshop, job_id)} agents after kill {kill}",  # noqa: B023
        )
        worker.kill()
        worker = workshop.start_worker(LEASE_S="1.5")
    job = workshop.ended(job_id, 120)
    assert (job.status, job.error) == ("succeeded", None)
    assert statuses(workshop, job_id) == {"succeeded": agents}
    assert done(workshop, job_id) == agents
    assert (job.result["agents_updated"], len(job.result["errors"])) == (agents, 0)
    for agent in place.fleet.agents[::10]:
        tokens = {place.file(agent, "AGENTS.md").count("AUTH_TOKEN=")}  # type: ignore[union-attr]
        assert tokens == {1}
        assert place.file(agent, "SOUL.md") == place.rendering(agent)["SOUL.md"].text
    again = workshop.ended(sync(workshop, place), 60)
    assert (again.result["agents_unchanged"], again.result["files_written"]) == (agents, 0)


def test_a_gateway_that_is_away_holds_no_slots_and_its_run_says_who_was_not_attempted(
    open_workshop: Callable[[], Workshop],
) -> None:
    workshop = open_workshop()
    away, here = workshop.place("2026.2.12", agents=40), workshop.place("2026.9.6", agents=10)
    for place in (away, here):
        plant(place, place.fleet.agents)
    workshop.start_worker(RETRY_TIMEOUT_S="4", WORKER_CONCURRENCY="4", RETRY_INLINE_S="20")
    assert workshop.ended(sync(workshop, here)).status == "succeeded"
    execute(workshop.engine, "UPDATE boards SET objective = 'Anew.'")
    lost = sync(workshop, away)
    workshop.eventually(lambda: done(workshop, lost) >= 3)
    away.simulator.kill()
    fine = workshop.ended(sync(workshop, here))
    assert (fine.status, fine.result["agents_updated"]) == ("succeeded", 10)
    job = workshop.ended(lost)
    assert job.status == "partial"
    assert "The gateway was unreachable for 4 seconds" in job.error
    counted = statuses(workshop, lost)
    assert job.result["agents_updated"] == counted["succeeded"] >= 3
    assert job.result["not_attempted"] == counted["not_attempted"] > 0
    assert job.result["agents_failed"] == counted["failed"]
    assert sum(counted.values()) == 40
    assert done(workshop, lost) == 40
    # Had they waited in their slots, as a job about one agent does, each would have been claimed once.
    assert one(workshop.engine, _MOST_CLAIMS, id=lost)[0] >= 2


def test_a_gateway_that_is_away_from_the_start_leaves_all_not_attempted(
    open_workshop: Callable[[], Workshop],
) -> None:
    workshop = open_workshop()
    place = workshop.place("2026.9.6", agents=3)
    place.simulator.stop()
    with socket.socket() as port:  # held, so that no other test's gateway gets it
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port.bind(("127.0.0.1", int(place.simulator.url.rpartition(":")[2])))
        workshop.start_worker(RETRY_TIMEOUT_S="2")
        job = workshop.ended(sync(workshop, place))
    assert (job.status, job.result["not_attempted"], job.result["agents_updated"]) == ("failed", 3, 0)
    assert "unreachable for 2 seconds" in job.error


_STATUSES = text("""
    SELECT status, count(*) AS agents FROM provisioner.job_agents WHERE job_id = :job_id GROUP BY status
""")
_MOST_CLAIMS = "SELECT max(generation) FROM provisioner.job_agents WHERE job_id = :id"
_DONE = "SELECT max(agents_done) FROM provisioner.jobs WHERE id = :id"
