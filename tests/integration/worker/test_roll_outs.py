"""A roll-out whose workers die at each of its steps goes on as if nothing had been (decisions.md D5)."""

from __future__ import annotations

from collections.abc import Callable

from tests.integration.agents.fleet import execute, one
from tests.integration.worker.planting import plant
from tests.integration.worker.workshop import Workshop


def test_over_two_gateways_whose_workers_are_killed_at_every_step(
    open_workshop: Callable[[], Workshop],
) -> None:
    workshop = open_workshop()
    west, east = workshop.place("2026.9.6", agents=3), workshop.place("2026.2.12", agents=3)
    settings = {"LEASE_S": "1.5", "CRASH_LIMIT": "50", "DISPATCH_INTERVAL_S": "0.1"}
    worker = workshop.start_worker(**settings)
    for place in (west, east):
        plant(place, place.fleet.agents)
        first = workshop.ask(
            "sync_gateway", gateway_id=place.fleet.gateway_id, include_main=False, rotate_tokens=True
        )
        assert workshop.ended(first).status == "succeeded"
    execute(workshop.engine, "UPDATE boards SET objective = 'Anew.'")
    job_id = workshop.ask(
        "roll_out",
        gateway_id=west.fleet.gateway_id,
        gateways=[str(east.fleet.gateway_id)],
        include_main=False,
        canary="2",
        probe=True,
        accept_unknown=True,
    )
    seen: set[str] = set()

    def at_a_new_step() -> bool:
        job = workshop.job(job_id)
        if job.status == "running" and job.phase not in seen:
            seen.add(job.phase)
            return True
        return job.status not in ("none", "queued", "running")

    while True:
        workshop.eventually(at_a_new_step, lambda: str(workshop.job(job_id)))
        if workshop.job(job_id).status != "running":
            break
        worker.kill()
        worker = workshop.start_worker(**settings)
    job = workshop.ended(job_id)
    assert (job.status, job.error) == ("succeeded", None)
    assert seen == {"look", "deliver", "check", "health"}
    assert (job.result["agents_healthy"], len(job.result["rings"])) == (6, 2)
    for place in (west, east):
        for agent in place.fleet.agents:
            assert set(place.differences(agent)) <= {"BOOTSTRAP.md"}  # for first provisions alone
    # Each was sent one message, or none if the worker died before it could be sent; none tells of runs.
    assert west.count("chat.send") <= 3
    assert east.count("chat.send") == 0
    assert one(workshop.engine, "SELECT count(*) FROM provisioner.held_files")[0] == 0
