"""What is due is published, and published again when it was lost: rows of a certain age, each one's end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from threading import Barrier
from typing import Any
from uuid import UUID, uuid4

import pytest
from kombu.exceptions import OperationalError
from sqlalchemy import Engine, Row

from tests.integration.agents.fleet import Fleet, execute, insert_job, job, job_agent, one, seed_fleet
from tests.integration.conftest import Sent
from worker.dispatcher import Dispatcher
from worker.jobs.intake import accept_agent_job
from worker.jobs.kinds import KINDS
from worker.jobs.outbox import BATCH, publish_due
from worker.jobs.store.job_agents import claim
from worker.runtime.services import Services

KIND = "provision_agent"
TASK = "tasks.provision_agent"


@pytest.fixture
def fleet(engine: Engine) -> Fleet:
    return seed_fleet(engine, agents=3)


def seconds_from_now(engine: Engine, moment: datetime) -> float:
    """How far away a moment is on Postgres's clock."""
    away: float = one(
        engine, "SELECT extract(epoch FROM CAST(:at AS timestamptz) - now())::float", at=moment
    )[0]
    return away


def row_of_age(engine: Engine, fleet: Fleet, **columns: str) -> UUID:
    """A running job whose agent's row has these columns, written as SQL."""
    key = insert_job(engine, fleet.agent_id, status="running", next_attempt_at=None)
    names, values = ", ".join(columns), ", ".join(columns.values())
    execute(
        engine,
        f"INSERT INTO provisioner.job_agents (job_id, agent_id, {names}) VALUES (:job, :agent, {values})",
        job=key,
        agent=fleet.agent_id,
    )
    return key


def test_a_bare_row_is_published_under_its_own_id(engine: Engine, fleet: Fleet, sent: Sent) -> None:
    key = insert_job(engine, fleet.agent_id, request_id="r")
    assert publish_due(engine, sent) == 1
    assert sent.take() == [(TASK, {"agent_id": str(fleet.agent_id)}, str(key))]
    assert publish_due(engine, sent) == 0
    row = job(engine, key)
    assert (row.status, row.published_at is not None) == ("queued", True)
    assert 30 < seconds_from_now(engine, row.next_attempt_at) <= 60


def test_a_row_of_a_kind_that_nobody_serves_fails_with_a_sentence(
    engine: Engine, fleet: Fleet, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = {name: kind for name, kind in KINDS.items() if name != "sync_gateway"}
    monkeypatch.setattr("worker.jobs.store.publishing.KINDS", older)
    job_id = insert_job(engine, fleet.agent_id, kind="sync_gateway")
    assert publish_due(engine, sent) == 0
    assert sent.take() == []
    row = job(engine, job_id)
    assert (row.status, row.next_attempt_at) == ("failed", None)
    assert "sync_gateway" in row.error


def test_a_message_that_was_lost_is_published_again_a_minute_later(
    engine: Engine, fleet: Fleet, sent: Sent
) -> None:
    old = insert_job(engine, fleet.agents[0])
    new = insert_job(engine, fleet.agents[1])
    publish_due(engine, sent)
    sent.take()
    for key, age in ((old, "61 s"), (new, "59 s")):
        execute(
            engine,
            "UPDATE provisioner.jobs SET next_attempt_at = next_attempt_at - CAST(:age AS interval)"
            " WHERE id = :id",
            id=key,
            age=age,
        )
    assert publish_due(engine, sent) == 1
    assert [task_id for _, _, task_id in sent.take()] == [str(old)]


def test_a_message_that_comes_for_a_row_that_a_lost_one_began_ends_the_republishing(
    engine: Engine, fleet: Fleet, sent: Sent
) -> None:
    key = insert_job(engine, fleet.agent_id)
    publish_due(engine, sent)
    accept_agent_job(engine, KIND, str(key), (), {})
    assert job(engine, key).next_attempt_at is None
    assert 0 < seconds_from_now(engine, job_agent(engine, key).next_attempt_at) <= 15


# Each row as it is found, whether it is published, and whether a claim then gets it and with which count.
@pytest.mark.parametrize(
    ("row", "published", "crashes"),
    [
        pytest.param(
            {"status": "'pending'", "published_at": "now() - interval '16 s'", "next_attempt_at": "now()"},
            True,
            0,
            id="accepted, then its worker died before the claim",
        ),
        pytest.param(
            {
                "status": "'pending'",
                "published_at": "now() - interval '5 s'",
                "next_attempt_at": "now() + interval '10 s'",
            },
            False,
            0,
            id="accepted, its message still on the way",
        ),
        pytest.param(
            {
                "status": "'running'",
                "crashes": "2",
                "attempts": "2",
                "generation": "7",
                "phase": "'files'",
                "lease_until": "now() - interval '1 s'",
                "next_attempt_at": "now() - interval '1 s'",
            },
            True,
            3,
            id="its worker died at work",
        ),
        pytest.param(
            {
                "status": "'running'",
                "generation": "7",
                "lease_until": "now() + interval '3 s'",
                "next_attempt_at": "now() + interval '3 s'",
            },
            False,
            None,
            id="at work",
        ),
        pytest.param(
            {"status": "'running'", "generation": "3", "next_attempt_at": "now() - interval '1 s'"},
            True,
            0,
            id="parked and due",
        ),
        pytest.param(
            {"status": "'running'", "generation": "3", "next_attempt_at": "now() + interval '9 s'"},
            False,
            None,
            id="parked and not due",
        ),
        pytest.param({"status": "'succeeded'", "next_attempt_at": "NULL"}, False, None, id="ended"),
        pytest.param(
            {"status": "'failed'", "next_attempt_at": "now() - interval '1 day'"},
            False,
            None,
            id="ended oddly",
        ),
    ],
)
def test_rescue_of_an_agents_row(
    engine: Engine,
    fleet: Fleet,
    sent: Sent,
    row: dict[str, str],
    published: bool,
    crashes: int | None,
) -> None:
    key = row_of_age(engine, fleet, **row)
    before = job_agent(engine, key)
    assert publish_due(engine, sent) == int(published)
    after = job_agent(engine, key)
    if published:
        assert sent == [(TASK, {"agent_id": str(fleet.agent_id)}, str(key))]
        assert (after.status, after.generation, after.crashes) == (
            before.status,
            before.generation,
            before.crashes,
        )
        assert 0 < seconds_from_now(engine, after.next_attempt_at) <= 15
    else:
        assert after == before
    held = claim(engine, key, fleet.agent_id, KIND, lease_s=5)
    assert getattr(held, "crashes", None) == crashes


@pytest.mark.parametrize("broken", [OperationalError("no broker"), RuntimeError("Retry limit"), OSError()])
def test_where_the_broker_is_away_the_marks_are_taken_back(
    engine: Engine, fleet: Fleet, sent: Sent, broken: Exception
) -> None:
    queued = insert_job(engine, fleet.agents[1])
    parked = row_of_age(engine, fleet, status="'running'", next_attempt_at="now()")
    gateway_with_intent(engine, fleet, {"writer_queued_at": "NULL"})
    sent.broken = broken
    with pytest.raises(type(broken)):
        publish_due(engine, sent)
    assert job(engine, queued).published_at is None
    assert job_agent(engine, parked).published_at is None
    assert gateway(engine, fleet).writer_queued_at is None
    sent.broken = None
    assert publish_due(engine, sent) == 3
    assert {name for name, _, _ in sent} == {TASK, "tasks.write_roster"}


def test_the_dispatcher_outlives_an_absent_broker_and_says_so_once(
    hands: Callable[..., Services], engine: Engine, fleet: Fleet, sent: Sent, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    dispatcher = Dispatcher(hands())
    insert_job(engine, fleet.agent_id)
    sent.broken = OperationalError("no broker")
    dispatcher.tick()
    dispatcher.tick()
    assert (
        caplog.messages.count("nothing can be published now, trying again: OperationalError: no broker") == 1
    )
    sent.broken = None
    dispatcher.tick()
    assert len(sent) == 1
    assert caplog.messages[-1] == "publishing again"


def test_many_dispatchers_publish_each_row_once(engine: Engine, sent: Sent) -> None:
    fleet = seed_fleet(engine, agents=60)
    keys = {str(insert_job(engine, agent_id)) for agent_id in fleet.agents}
    together = Barrier(8)

    def tick(_: int) -> None:
        together.wait()
        publish_due(engine, sent)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(tick, range(8)))
    assert len(sent) == 60
    assert {task_id for _, _, task_id in sent} == keys


def test_more_than_a_batch_goes_out_in_one_tick_oldest_first(
    hands: Callable[..., Services], engine: Engine, sent: Sent
) -> None:
    fleet = seed_fleet(engine)
    execute(
        engine,
        "INSERT INTO provisioner.jobs (id, kind, agent_id, next_attempt_at)"
        " SELECT gen_random_uuid(), 'provision_agent', :agent, now() - make_interval(secs => n)"
        " FROM generate_series(1, :count) n",
        agent=fleet.agent_id,
        count=BATCH + 5,
    )
    Dispatcher(hands()).tick()
    assert len(sent) == BATCH + 5
    newest = one(engine, "SELECT id FROM provisioner.jobs ORDER BY published_at DESC, id LIMIT 1")
    assert str(newest.id) in {task_id for _, _, task_id in sent[BATCH:]}


def gateway(engine: Engine, fleet: Fleet) -> Row[Any]:
    return one(engine, "SELECT * FROM provisioner.gateway_states WHERE gateway_id = :id", id=fleet.gateway_id)


def gateway_with_intent(
    engine: Engine, fleet: Fleet, columns: Mapping[str, str], *, open_intent: bool = True
) -> None:
    names, values = ", ".join(columns), ", ".join(columns.values())
    execute(
        engine,
        f"INSERT INTO provisioner.gateway_states (gateway_id, {names}) VALUES (:id, {values})",
        id=fleet.gateway_id,
    )
    execute(
        engine,
        "INSERT INTO provisioner.roster_intents (gateway_id, agent_id, job_id, change, openclaw_id,"
        f" applied_at) VALUES (:id, :agent, :job, 'reconcile', 'x', {'NULL' if open_intent else 'now()'})",
        id=fleet.gateway_id,
        agent=fleet.agents[2],
        job=uuid4(),
    )


@pytest.mark.parametrize(
    ("columns", "published"),
    [
        pytest.param({"writer_queued_at": "NULL"}, True, id="nobody was called"),
        pytest.param({"writer_queued_at": "now() - interval '11 s'"}, True, id="the call was lost"),
        pytest.param({"writer_queued_at": "now() - interval '9 s'"}, False, id="the call is on its way"),
        pytest.param({"writer_until": "now() + interval '5 s'"}, False, id="a writer is at work"),
        pytest.param({"writer_until": "now() - interval '1 s'"}, True, id="its writer died"),
        pytest.param({"rate_limited_until": "now() + interval '5 s'"}, False, id="rate limited"),
        pytest.param({"rate_limited_until": "now() - interval '1 s'"}, True, id="no longer rate limited"),
        pytest.param({"writer_not_before": "now() + interval '5 s'"}, False, id="later"),
    ],
)
def test_rescue_of_a_roster_write(
    engine: Engine, fleet: Fleet, sent: Sent, columns: dict[str, str], published: bool
) -> None:
    gateway_with_intent(engine, fleet, columns)
    assert publish_due(engine, sent) == int(published)
    expected = [("tasks.write_roster", {"gateway_id": str(fleet.gateway_id)}, None)]
    assert sent == (expected if published else [])


def test_a_gateway_without_open_intents_needs_no_writer(engine: Engine, fleet: Fleet, sent: Sent) -> None:
    gateway_with_intent(engine, fleet, {"writer_queued_at": "NULL"}, open_intent=False)
    assert publish_due(engine, sent) == 0
