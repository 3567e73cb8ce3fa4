"""Whoever listens hears of each job that ends, in the transaction that ends it (docs/enqueue.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine

from tests.bouncer import bouncer
from tests.integration.agents.fleet import Fleet, execute, insert_job, seed_fleet
from tests.integration.conftest import Sent
from tests.integration.listening import Listener, listening
from worker.database import make_engine
from worker.jobs.intake import Accepted, accept_agent_job
from worker.jobs.outbox import publish_due
from worker.jobs.requests import BadRequestError
from worker.jobs.store.cancelling import cancel
from worker.jobs.store.job_agents import Claim, claim, finish
from worker.jobs.store.jobs import finish_queued


@pytest.fixture
def fleet(engine: Engine) -> Fleet:
    return seed_fleet(engine, agents=2)


@pytest.fixture
def listener(engine: Engine, fleet: Fleet) -> Iterator[Listener]:
    with listening(engine) as listener:
        yield listener


def started(engine: Engine, agent_id: UUID) -> UUID:
    accepted = accept_agent_job(engine, "provision_agent", str(uuid4()), (), {"agent_id": str(agent_id)})
    assert isinstance(accepted, Accepted)
    return accepted.job_id


def taken(engine: Engine, agent_id: UUID) -> Claim:
    held = claim(engine, started(engine, agent_id), agent_id, "provision_agent", lease_s=60)
    assert isinstance(held, Claim)
    return held


@pytest.mark.parametrize(("row", "status"), [("succeeded", "succeeded"), ("skipped", "failed")])
def test_a_job_about_one_agent_is_told_once_it_has_ended(
    engine: Engine, fleet: Fleet, listener: Listener, row: str, status: str
) -> None:
    held = taken(engine, fleet.agent_id)
    assert listener.batches() == []
    with engine.begin() as connection:
        finish(connection, held, row, reason="why", warnings=[])
        connection.exec_driver_sql("SELECT 1")
        assert listener.batches() == [], "nothing is told before the commit"
    assert listener.batches() == [[(str(held.job_id), status)]]


def test_refused_and_cancelled_jobs_are_told_too(engine: Engine, fleet: Fleet, listener: Listener) -> None:
    refused, cancelled, by_row = uuid4(), insert_job(engine, fleet.agent_id), insert_job(engine, uuid4())
    accept_agent_job(engine, "provision_agent", str(refused), (), {"agent_id": "nobody"})
    assert listener.batches() == [[(str(refused), "failed")]]
    accept_agent_job(engine, "provision_agent", str(by_row), (), {}, _of_nobody)
    assert listener.batches() == [[(str(by_row), "failed")]]
    with engine.begin() as connection:
        cancel(connection, cancelled)
    assert listener.batches() == [[(str(cancelled), "cancelled")]]
    held, waiting = taken(engine, fleet.agent_id), started(engine, fleet.agent_id)
    with engine.begin() as connection:
        assert cancel(connection, waiting)
        assert not cancel(connection, held.job_id)
    assert listener.batches() == [[(str(waiting), "cancelled")]], "the other one ends later"


def _of_nobody(*_: object) -> UUID:
    raise BadRequestError("There is no agent of that id.")


def test_jobs_that_end_without_a_row_of_an_agent_are_told(
    engine: Engine, fleet: Fleet, listener: Listener, sent: Sent
) -> None:
    at_once = insert_job(engine, fleet.agent_id)
    with engine.begin() as connection:
        finish_queued(connection, at_once, {})
    assert listener.batches() == [[(str(at_once), "succeeded")]]
    unknown = insert_job(engine, fleet.agent_id, kind="adopt_everything")
    publish_due(engine, sent)
    assert listener.batches() == [[(str(unknown), "failed")]]


def test_a_batch_is_told_at_once_and_no_payload_is_too_long_for_postgres(
    engine: Engine, fleet: Fleet, listener: Listener
) -> None:
    keys = {str(insert_job(engine, fleet.agent_id)) for _ in range(250)}
    assert listener.batches() == []
    execute(engine, "UPDATE provisioner.jobs SET status = 'cancelled', finished_at = now()")
    payloads = listener.payloads()
    assert [len(json.loads(payload)) for payload in payloads] == [100, 100, 50]
    assert max(len(payload.encode()) for payload in payloads) < 8000
    assert {one["id"] for payload in payloads for one in json.loads(payload)} == keys
    execute(engine, "UPDATE provisioner.jobs SET updated_at = now()")
    assert listener.batches() == [], "a job that has ended is not told again"


def test_behind_a_pooler_it_is_told_as_well(engine: Engine, fleet: Fleet, listener: Listener) -> None:
    held = taken(engine, fleet.agent_id)
    url = engine.url.render_as_string(hide_password=False)
    with bouncer(url) as pooled:
        through = make_engine(pooled, pool_size=1)
        with through.begin() as connection:
            finish(connection, held, "succeeded", warnings=[])
        through.dispose()
    assert listener.batches() == [[(str(held.job_id), "succeeded")]]


def test_a_service_that_may_only_insert_still_may(engine: Engine, fleet: Fleet) -> None:
    role = "inserts_only"
    with engine.connect() as connection, connection.begin() as transaction:
        for statement in (
            f"CREATE ROLE {role}",
            f"GRANT USAGE ON SCHEMA provisioner TO {role}",
            f"GRANT SELECT, INSERT ON provisioner.jobs TO {role}",
            f"SET LOCAL ROLE {role}",
            "INSERT INTO provisioner.jobs (id, kind) VALUES (gen_random_uuid(), 'update_agent')",
        ):
            connection.exec_driver_sql(statement)
        transaction.rollback()
