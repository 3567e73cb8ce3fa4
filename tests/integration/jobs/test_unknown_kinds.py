"""Jobs of a kind that this version does not know: a newer worker's, or nobody's."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine

from tests.integration.agents.fleet import execute, insert_job, one, seed_fleet
from tests.integration.conftest import Sent
from worker.database import make_engine
from worker.errors import PermanentError
from worker.jobs.outbox import publish_due
from worker.jobs.store.retrying import retry
from worker.schema_version import NEEDED_REVISION

KIND = "adopt_everything"


@pytest.fixture
def newer(database_url: str) -> Iterator[Engine]:
    """A database of its own, whose revision may be another one's."""
    engine = make_engine(database_url, pool_size=2)
    yield engine
    engine.dispose()


def a_job_of_that_kind(engine: Engine, agent_id: UUID) -> UUID:
    """One that a worker has begun, with an agent's row that is due."""
    key = uuid4()
    execute(
        engine,
        "INSERT INTO provisioner.jobs (id, kind, agent_id, status, phase)"
        " VALUES (:id, :kind, :agent, 'running', 'x')",
        id=key,
        kind=KIND,
        agent=agent_id,
    )
    execute(
        engine,
        "INSERT INTO provisioner.job_agents (job_id, agent_id, status, next_attempt_at)"
        " VALUES (:id, :agent, 'running', now())",
        id=key,
        agent=agent_id,
    )
    return key


def state(engine: Engine, key: UUID) -> tuple[object, ...]:
    statement = """
        SELECT j.status, j.error, j.published_at, j.next_attempt_at, r.status AS row, r.reason,
            r.published_at AS row_published, r.next_attempt_at AS row_next
        FROM provisioner.jobs j JOIN provisioner.job_agents r ON r.job_id = j.id WHERE j.id = :id
    """
    return tuple(one(engine, statement, id=key))


def test_a_newer_workers_job_is_left_alone_and_ours_go_on(newer: Engine, sent: Sent) -> None:
    fleet = seed_fleet(newer, agents=2)
    theirs, ours = a_job_of_that_kind(newer, fleet.agents[0]), insert_job(newer, fleet.agents[1])
    execute(newer, "UPDATE provisioner.alembic_version SET version_num = '9999'")
    before = state(newer, theirs)
    assert publish_due(newer, sent) == 1
    assert [task_id for _, _, task_id in sent.take()] == [str(ours)]
    assert state(newer, theirs) == before


def test_a_job_that_no_worker_serves_ends_with_its_rows_and_says_so(newer: Engine, sent: Sent) -> None:
    fleet = seed_fleet(newer, agents=1)
    key = a_job_of_that_kind(newer, fleet.agents[0])
    assert one(newer, "SELECT version_num FROM provisioner.alembic_version")[0] == NEEDED_REVISION
    assert publish_due(newer, sent) == 0
    status, error, _, next_attempt_at, row, reason, _, row_next = state(newer, key)
    assert (status, row, next_attempt_at, row_next) == ("failed", "failed", None, None)
    assert KIND in str(error)
    assert "upgrade the workers" in str(error)
    assert reason == error


def test_a_job_of_a_kind_that_no_worker_serves_is_not_retried(engine: Engine, sent: Sent) -> None:
    key = a_job_of_that_kind(engine, seed_fleet(engine).agent_id)
    publish_due(engine, sent)
    with pytest.raises(PermanentError, match=f"jobs of kind {KIND}"), engine.begin() as connection:
        retry(connection, key, requested_by=None)
