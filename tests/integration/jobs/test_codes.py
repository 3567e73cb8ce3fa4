"""A code stands beside each reason that the store writes, and goes with it."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from tests.integration.agents.fleet import insert_job, job, job_agent, seed_fleet
from tests.integration.jobs.test_store import KIND, accept, take
from worker.jobs.intake import accept_agent_job
from worker.jobs.outbox import publish_due
from worker.jobs.states import AgentOutcome, ReasonCode
from worker.jobs.store.cancelling import cancel
from worker.jobs.store.job_agents import claim, finish, park
from worker.jobs.store.leases import NotClaimed


def test_a_row_waits_and_ends_with_its_code_and_is_claimed_without(engine: Engine) -> None:
    agent_id = seed_fleet(engine).agent_id
    job_id = accept(engine, agent_id)
    held = take(engine, job_id, agent_id)
    with engine.begin() as connection:
        park(connection, held, 0, "takes no more", code=ReasonCode.RATE_LIMITED)
    assert job_agent(engine, job_id).reason_code == "rate_limited"
    publish_due(engine, lambda *_: None)
    held = take(engine, job_id, agent_id)
    assert job_agent(engine, job_id).reason_code is None
    with engine.begin() as connection:
        finish(connection, held, "failed", reason="None.", warnings=[], code=ReasonCode.NO_TOKEN)
    assert job_agent(engine, job_id).reason_code == "no_token"
    assert job(engine, job_id).reason_code == "no_token"


def test_a_job_that_succeeds_has_no_code(engine: Engine) -> None:
    agent_id = seed_fleet(engine).agent_id
    job_id = accept(engine, agent_id)
    with engine.begin() as connection:
        finish(connection, take(engine, job_id, agent_id), "succeeded", warnings=[])
    assert job_agent(engine, job_id).reason_code is None
    assert job(engine, job_id).reason_code is None


@pytest.mark.parametrize("outcome", list(AgentOutcome))
def test_an_outcome_is_told_by_the_phase_too_until_the_next_release(
    engine: Engine, outcome: AgentOutcome
) -> None:
    agent_id = seed_fleet(engine).agent_id
    job_id = accept(engine, agent_id)
    with engine.begin() as connection:
        held = take(engine, job_id, agent_id)
        finish(connection, held, "skipped", reason="Gone.", warnings=[], outcome=outcome)
    row = job_agent(engine, job_id)
    assert (row.outcome, row.phase) == (outcome, "paused" if outcome == "paused" else "deleted")


def test_a_row_that_found_its_agent_busy_says_so(engine: Engine) -> None:
    agent_id = seed_fleet(engine).agent_id
    take(engine, accept(engine, agent_id), agent_id)
    later = accept(engine, agent_id)
    assert claim(engine, later, agent_id, KIND, lease_s=5) is NotClaimed.AGENT_BUSY
    assert job_agent(engine, later).reason_code == "waiting_for_agent"


def test_what_is_cancelled_or_refused_says_so(engine: Engine) -> None:
    cancelled = insert_job(engine, seed_fleet(engine).agent_id)
    with engine.begin() as connection:
        assert cancel(connection, cancelled)
    assert job(engine, cancelled).reason_code == "cancelled"
    refused = accept_agent_job(engine, KIND, "r", (), {"agent_id": "none"})
    assert job(engine, refused.job_id).reason_code == "refused_request"
