"""A sync cancelled while two workers are at work on it, and the retry that finishes it (decisions.md D6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from sqlalchemy import text

from tests.integration.agents.fleet import one
from tests.integration.worker.planting import plant
from tests.integration.worker.workshop import Place, Workshop
from worker.jobs.store.cancelling import cancel
from worker.jobs.store.retrying import retry
from worker.lab.simulator import Timings
from worker.workspace.tokens import PLACEHOLDER, find_token

AGENTS = 30


def rows(workshop: Workshop, job_id: UUID) -> dict[UUID, Any]:
    with workshop.engine.connect() as connection:
        found = connection.execute(
            text("SELECT * FROM provisioner.job_agents WHERE job_id = :id"), {"id": job_id}
        )
        return {row.agent_id: row for row in found}


def untouched(place: Place, agent_id: UUID) -> bool:
    return all(place.file(agent_id, name) is None for name in ("SOUL.md", "IDENTITY.md", "USER.md"))


def whole(place: Place, agent_id: UUID) -> bool:
    """Whether every file is as its template wants it, the one with the token included."""
    rendering = place.rendering(agent_id)
    carrier = place.file(agent_id, "AGENTS.md") or ""
    token = find_token(carrier, section=True)
    return carrier == rendering["AGENTS.md"].text.replace(PLACEHOLDER, token or "") and all(
        place.file(agent_id, name) == rendering[name].text for name in ("SOUL.md", "IDENTITY.md", "USER.md")
    )


def test_a_cancel_amid_a_sync_leaves_no_file_half_written_and_retry_finishes_the_rest(
    open_workshop: Callable[[], Workshop],
) -> None:
    workshop = open_workshop()
    place = workshop.place("2026.9.6", agents=AGENTS, timings=Timings(latency_s=0.05))
    plant(place, place.fleet.agents)
    for _ in range(2):
        workshop.start_worker(WORKER_CONCURRENCY="4")
    job_id = workshop.ask("sync_gateway", gateway_id=place.fleet.gateway_id, include_main=False)
    workshop.eventually(lambda: one(workshop.engine, _DONE, id=job_id)[0] >= 5)
    with workshop.engine.begin() as connection:
        assert cancel(connection, job_id) is False
    job = workshop.ended(job_id)
    ended = rows(workshop, job_id)
    kept = {agent for agent, row in ended.items() if row.status == "succeeded"}
    left = {agent for agent, row in ended.items() if row.status == "cancelled"}
    assert kept | left == set(place.fleet.agents)
    assert len(kept) >= 5
    assert left
    assert (job.status, job.result["agents_updated"], job.result["agents_failed"]) == (
        "cancelled",
        len(kept),
        0,
    )
    assert job.error == f"Cancelled on request: {len(kept)} of {AGENTS} agents were done."
    assert one(workshop.engine, _DONE, id=job_id)[0] == AGENTS
    assert [agent for agent in kept if not whole(place, agent)] == []
    assert [agent for agent in left if not untouched(place, agent)] == []
    with workshop.engine.begin() as connection:
        new = retry(connection, job_id, requested_by=None)
    done = workshop.ended(new)
    assert (done.status, done.result["agents_updated"]) == ("succeeded", len(left))
    assert set(rows(workshop, new)) == left
    assert [agent for agent in place.fleet.agents if not whole(place, agent)] == []


_DONE = "SELECT coalesce(max(agents_done), 0) FROM provisioner.jobs WHERE id = :id"
