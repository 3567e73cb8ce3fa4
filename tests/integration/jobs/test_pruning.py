"""What is pruned and what is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, text

from tests.fleet import Fleet, make_fleet
from worker.jobs.store import pruning
from worker.jobs.store.pruning import Pruned, prune

MONTH = timedelta(days=30)


@pytest.fixture
def fleet(engine: Engine) -> Fleet:
    return make_fleet(engine, url="ws://127.0.0.1:9", token="t", workspace_root="~/.openclaw")


def job(engine: Engine, days: float, *agents: UUID, place: str | None = "mc-x", **columns: Any) -> UUID:
    """A job that ended so many days ago, with a row and a settled intent for each of these agents."""
    values: dict[str, Any] = {"kind": "sync_gateway", "status": "succeeded", "agent_id": None, **columns}
    key = uuid4()
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO provisioner.jobs (id, kind, status, agent_id, finished_at, next_attempt_at)
                VALUES (:id, :kind, :status, :agent_id, now() - make_interval(secs => :age_s), NULL)
            """),
            {**values, "id": key, "age_s": days * 86_400},
        )
        for agent in agents:
            parameters = {"id": key, "agent": agent, "place": place}
            connection.execute(
                text("""
                    INSERT INTO provisioner.job_agents (job_id, agent_id, status, openclaw_id, finished_at)
                    VALUES (:id, :agent, 'succeeded', :place, now())
                """),
                parameters,
            )
            connection.execute(
                text("""
                    INSERT INTO provisioner.roster_intents
                        (gateway_id, agent_id, job_id, change, openclaw_id, applied_at)
                    VALUES (gen_random_uuid(), :agent, :id, 'reconcile', 'mc-x', now())
                """),
                parameters,
            )
    return key


def left(engine: Engine) -> set[UUID]:
    with engine.connect() as connection:
        return set(connection.execute(text("SELECT id FROM provisioner.jobs")).scalars())


def pruned(engine: Engine, *, dry_run: bool = False) -> Pruned:
    return sum(prune(engine, MONTH, dry_run=dry_run), Pruned())


def test_what_ended_long_ago_goes_with_its_rows_and_intents_and_the_newest_stays(
    engine: Engine, fleet: Fleet
) -> None:
    ann, bob = fleet.add_agent("Ann"), fleet.add_agent("Bob")
    for days in (90, 80, 70):
        job(engine, days, ann, bob)
    newest_of_bob, newest_of_ann = job(engine, 60, ann, bob), job(engine, 50, ann)
    young = job(engine, 29)
    promised = pruned(engine, dry_run=True)
    assert len(left(engine)) == 6
    assert pruned(engine) == promised == Pruned(jobs=3, agents=6, intents=6)
    assert left(engine) == {newest_of_bob, newest_of_ann, young}
    assert pruned(engine) == Pruned()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM provisioner.job_agents")).scalar_one() == 3


def test_what_is_open_or_wanted_stays_however_old(engine: Engine, fleet: Fleet) -> None:
    ann = fleet.add_agent("Ann")
    waiting, named = job(engine, 90, ann), job(engine, 90, ann)
    running = job(engine, 90, ann, status="running")
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE provisioner.roster_intents SET applied_at = NULL WHERE job_id = :id"),
            {"id": waiting},
        )
        connection.execute(
            text("""
                INSERT INTO provisioner.sync_schedules (id, gateway_id, every, last_job_id)
                VALUES (gen_random_uuid(), :gateway, '1 day', :id)
            """),
            {"gateway": fleet.gateway_id, "id": named},
        )
    newest = job(engine, 40, ann)
    assert pruned(engine) == Pruned()
    assert left(engine) == {waiting, named, running, newest}


def test_a_job_that_is_still_open_is_no_newest_one(engine: Engine, fleet: Fleet) -> None:
    ann = fleet.add_agent("Ann")
    ended = job(engine, 90, ann)
    job(engine, 0, ann, status="running")
    assert pruned(engine) == Pruned()
    assert ended in left(engine)


def test_the_last_that_knows_where_an_agent_is_stays_also_when_its_row_is_gone(engine: Engine) -> None:
    lost, deleted = uuid4(), uuid4()
    older, knowing = job(engine, 90, lost), job(engine, 80, lost)
    paused = job(engine, 70, lost, place=None)
    job(engine, 90, deleted)
    job(engine, 80, deleted, kind="delete_agent", agent_id=deleted)
    assert pruned(engine).jobs == 3
    assert left(engine) == {knowing, paused}
    assert older not in left(engine)


def test_refused_requests_go_but_for_an_agents_newest(engine: Engine, fleet: Fleet) -> None:
    ann = fleet.add_agent("Ann")
    job(engine, 90, kind="provision_agent", status="failed", agent_id=ann)
    newest = job(engine, 80, kind="provision_agent", status="failed", agent_id=ann)
    job(engine, 80, kind="provision_agent", status="failed", agent_id=uuid4())
    job(engine, 80, kind="sync_gateway", status="failed")
    assert pruned(engine).jobs == 3
    assert left(engine) == {newest}


def test_it_goes_on_batch_by_batch_past_what_stays(
    engine: Engine, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "BATCH", 2)
    kept = {job(engine, 100 - n, fleet.add_agent(f"Agent {n}")) for n in range(5)}
    for n in range(5):
        job(engine, 90 - n)
    steps = list(prune(engine, MONTH))
    assert max(step.jobs for step in steps) <= 2
    assert sum(steps, Pruned()).jobs == 5
    assert left(engine) == kept


def test_an_index_finds_what_ended_long_ago(engine: Engine) -> None:
    values = {"before": datetime.now(UTC), "finished_at": None, "id": None, "batch": 500}
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        connection.execute(text("SET LOCAL enable_sort = off"))
        plan = connection.execute(text(f"EXPLAIN {pruning._BATCH.text}"), values).scalars().all()
    assert any("jobs_finished_idx" in line for line in plan), plan
