"""2026.9.6 says "workspace directory not found" of any look at a workspace that failed: it is believed only
where it stays so, for all that the agent keeps there would be written anew."""

from __future__ import annotations

import shutil
from uuid import UUID

import pytest

from tests.integration.agents.fleet import execute
from tests.integration.worker.workshop import Place, Workshop
from worker.lab.simulator.faults import Fault, Refuse

NOT_FOUND = Refuse("workspace directory not found", code="INVALID_REQUEST")
OWN_WORDS = "The release is on Friday."


@pytest.fixture
def place(workshop: Workshop) -> Place:
    return workshop.place("2026.9.6")


@pytest.fixture
def agent_id(workshop: Workshop, place: Place) -> UUID:
    """An agent that has written down something."""
    agent_id = place.fleet.agent_id
    assert workshop.ended(workshop.send(agent_id, wake=False)).status == "succeeded"
    (place.simulator.workspace(place.record(agent_id).openclaw_id) / "MEMORY.md").write_text(OWN_WORDS)
    return agent_id


def test_a_workspace_that_is_not_found_for_a_moment_is_left_as_it_is(
    workshop: Workshop, place: Place, agent_id: UUID
) -> None:
    before = place.token(agent_id)
    place.simulator.faults.schedule(Fault(NOT_FOUND, method="agents.workspace.list", times=1))
    job = workshop.ended(workshop.send(agent_id, wake=False, reset_session=False))
    assert (job.status, job.result["token"]) == ("succeeded", "reused"), job.error
    assert place.file(agent_id, "MEMORY.md") == OWN_WORDS
    assert place.token(agent_id) == before


def test_a_workspace_that_stays_away_is_made_anew(workshop: Workshop, place: Place, agent_id: UUID) -> None:
    shutil.rmtree(place.simulator.workspace(place.record(agent_id).openclaw_id))
    key = workshop.send(agent_id, wake=False, reset_session=False)
    workshop.eventually(lambda: "finds no workspace" in (workshop.job(key).reason or ""))
    execute(
        place.engine,
        "UPDATE provisioner.job_agents SET started_at = started_at - interval '31 s' WHERE job_id = :id",
        id=key,
    )
    job = workshop.ended(key)
    assert (job.status, job.result["token"]) == ("succeeded", "rotated"), job.error
    assert place.differences(agent_id) == []
