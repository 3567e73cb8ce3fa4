"""A worker deletes what is old: once an hour, one at a time, and step by step."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine, text

from tests.fleet import Fleet
from tests.integration.jobs.test_pruning import MONTH, fleet, job, left
from worker.jobs.store import pruning
from worker.records import upkeep
from worker.records.upkeep import Removed, count, remove, remove_if_due

__all__ = ["fleet"]


def plant(engine: Engine, days: float, texts: int = 1) -> None:
    """Notes of what jobs replaced, and texts that they name, from so many days ago."""
    with engine.begin() as connection:
        for _ in range(texts):
            values = {"id": uuid4(), "digest": uuid4().hex, "age": timedelta(days=days)}
            connection.execute(_NOTE, values)
            connection.execute(_TEXT, values)


_NOTE = text("""
    INSERT INTO provisioner.file_changes (job_id, agent_id, gateway_id, name, written_sha256, changed_at)
    VALUES (:id, :id, :id, 'SOUL.md', :digest, now() - CAST(:age AS interval))
""")
_TEXT = text("""
    INSERT INTO provisioner.file_texts (gateway_id, sha256, body, stored_at)
    VALUES (:id, :digest, 'x', now() - CAST(:age AS interval))
""")


def rows(engine: Engine, table: str) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM provisioner.{table}")).scalar_one())


def make_due(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE provisioner.upkeep SET next_run_at = now()"))


def test_what_is_old_goes_in_all_tables_and_is_counted(
    engine: Engine, fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    ann = fleet.add_agent("Ann")
    job(engine, 40, ann)
    newest = job(engine, 35, ann)
    plant(engine, 40, texts=3)
    plant(engine, 20, texts=2)
    promised = count(engine, MONTH)
    with caplog.at_level(logging.INFO):
        removed = remove_if_due(engine, MONTH)
    assert removed == Removed(jobs=1, agents=1, intents=1, changes=3, texts=3)
    assert promised == Removed(jobs=1, agents=1, intents=1, changes=3), "its texts are named until then"
    assert "deleted what is older than 30 days: 1 jobs, 1 agents, 1 intents, 3 changes" in caplog.text
    assert left(engine) == {newest}
    assert (rows(engine, "file_changes"), rows(engine, "file_texts")) == (2, 2)

    job(engine, 40)
    assert remove_if_due(engine, MONTH) is None, "an hour has not passed"
    make_due(engine)
    assert remove_if_due(engine, MONTH) == Removed(jobs=1)
    with engine.connect() as connection:
        row = connection.execute(text("SELECT * FROM provisioner.upkeep")).one()
        assert row.next_run_at - row.last_run_at > timedelta(minutes=59)
    assert (row.removed["jobs"], row.removed["texts"]) == (2, 3)


def test_of_several_workers_one_does_it(engine: Engine) -> None:
    for _ in range(2):
        at_once = Barrier(6)

        def ask(_: int, at_once: Barrier = at_once) -> Removed | None:
            at_once.wait()
            return remove_if_due(engine, MONTH)

        with ThreadPoolExecutor(6) as workers:
            assert [each for each in workers.map(ask, range(6)) if each is not None] == [Removed()]
        make_due(engine)


def test_it_stops_in_time_keeps_what_it_did_and_goes_on_at_the_next_tick(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "LONGEST_S", -1.0)
    monkeypatch.setattr(upkeep, "BATCH", 2)
    monkeypatch.setattr(pruning, "BATCH", 2)
    for _ in range(3):
        job(engine, 40)
    plant(engine, 40, texts=3)
    seen = [remove_if_due(engine, MONTH) for _ in range(2)]
    assert [each.jobs for each in seen if each] == [2, 1]
    assert rows(engine, "jobs") == 0
    monkeypatch.setattr(upkeep, "LONGEST_S", 15.0)
    assert remove_if_due(engine, MONTH) == Removed(changes=3, texts=3)
    assert remove_if_due(engine, MONTH) is None
    plant(engine, 40, texts=3)
    assert [step.changes for step in remove(engine, MONTH) if step.changes] == [2, 1]


def test_without_a_right_nothing_is_deleted_and_the_log_names_it(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    job(engine, 40)
    role = f"few_{uuid4().hex[:8]}"
    with engine.begin() as connection:
        for statement in (
            "CREATE ROLE {} LOGIN PASSWORD 'few'",
            "GRANT USAGE ON SCHEMA provisioner TO {}",
            "GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA provisioner TO {}",
        ):
            connection.exec_driver_sql(statement.format(role))
    few = create_engine(engine.url.set(username=role, password="few"))
    try:
        assert remove_if_due(few, MONTH) is None
    finally:
        few.dispose()
        with engine.begin() as connection:
            connection.exec_driver_sql(f"DROP OWNED BY {role}")
            connection.exec_driver_sql(f"DROP ROLE {role}")
    assert rows(engine, "jobs") == 1
    assert f"nothing old is deleted: the role {role} lacks DELETE on provisioner.jobs" in caplog.text
    assert f"GRANT DELETE ON provisioner.jobs TO {role}" in caplog.text
