"""What jobs write about agents, seen by Postgres itself: triggers that keep a record of every step, and that
can make a transaction stand still in the middle. Independent of the code under test."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self
from uuid import UUID

from sqlalchemy import Connection, Engine, text

_WATCHED = (
    "provisioner.jobs",
    "provisioner.job_agents",
    "provisioner.agent_credentials",
    "provisioner.agent_files",
    "agents",
)
_INSTALL = """
CREATE SCHEMA IF NOT EXISTS watch;
CREATE TABLE IF NOT EXISTS watch.steps (
    n bigserial, at timestamptz DEFAULT clock_timestamp(), transaction bigint DEFAULT txid_current(),
    agent_id uuid, job_id uuid, generation int, step text
);
CREATE TABLE IF NOT EXISTS watch.gates (agent_id uuid, step text, key int);

CREATE OR REPLACE FUNCTION watch.note() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    named text;
    agent uuid;
    job uuid;
    generation int;
    gate int;
BEGIN
    IF TG_TABLE_NAME = 'jobs' THEN
        agent := NEW.agent_id; job := NEW.id;
        IF TG_OP = 'UPDATE' AND NEW.status <> OLD.status THEN named := 'job ' || NEW.status; END IF;
    ELSIF TG_TABLE_NAME = 'job_agents' THEN
        agent := NEW.agent_id; job := NEW.job_id; generation := NEW.generation;
        IF TG_OP = 'INSERT' THEN named := 'row made';
        ELSIF NEW.generation <> OLD.generation THEN named := 'claimed';
        ELSIF NEW.status <> OLD.status THEN named := 'row ' || NEW.status;
        ELSIF NEW.wake_sent_at IS DISTINCT FROM OLD.wake_sent_at THEN named := 'wake sent';
        ELSIF NEW.phase IS DISTINCT FROM OLD.phase THEN named := 'phase ' || NEW.phase;
        ELSIF NEW.status = 'pending' AND NEW.published_at IS NULL AND OLD.published_at IS NOT NULL
            THEN named := 'postponed';
        END IF;
    ELSIF TG_TABLE_NAME = 'agents' THEN
        IF TG_OP = 'DELETE' THEN agent := OLD.id; named := 'agent deleted';
        ELSE
            agent := NEW.id;
            IF TG_OP = 'UPDATE' AND NEW.agent_token_hash IS DISTINCT FROM OLD.agent_token_hash
                THEN named := 'hash changed';
            ELSIF TG_OP = 'UPDATE' AND NEW.status <> OLD.status THEN named := 'agent ' || NEW.status;
            END IF;
        END IF;
    ELSIF TG_TABLE_NAME = 'agent_credentials' THEN
        IF TG_OP <> 'DELETE' THEN
            agent := NEW.agent_id;
            named := CASE WHEN NEW.pending_hash IS NOT NULL THEN 'pending stored' ELSE 'nothing pending' END;
        END IF;
    ELSE
        IF TG_OP <> 'DELETE' THEN agent := NEW.agent_id; named := 'recorded ' || NEW.name; END IF;
    END IF;
    IF named IS NULL THEN RETURN NULL; END IF;
    INSERT INTO watch.steps (agent_id, job_id, generation, step) VALUES (agent, job, generation, named);
    SELECT g.key INTO gate FROM watch.gates g WHERE g.agent_id = agent AND g.step = named;
    IF FOUND THEN PERFORM pg_advisory_xact_lock(gate); END IF;
    RETURN NULL;
END $$;
"""


@dataclass(frozen=True)
class CommittedStep:
    """One step of a job that was committed. ``at``: seconds since the epoch, by Postgres's clock at the
    moment of the write; ``generation``: of the row, for steps of a row."""

    at: float
    transaction: int
    agent_id: UUID
    job_id: UUID | None
    generation: int | None
    step: str


class RowWatch:
    """The triggers, while the block lasts. Each gate stops one agent's transaction after the step of that
    name, before its commit."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._keys = itertools.count(1)
        self._shut: dict[int, tuple[UUID, str]] = {}
        self._holder: Connection | None = None

    def __enter__(self) -> Self:
        with self._engine.begin() as connection:
            connection.exec_driver_sql(_INSTALL)
            connection.exec_driver_sql("DELETE FROM watch.steps; DELETE FROM watch.gates")
        for table in _WATCHED:
            with self._engine.begin() as connection:
                connection.exec_driver_sql(
                    f"CREATE OR REPLACE TRIGGER watched AFTER INSERT OR UPDATE OR DELETE ON {table}"
                    " FOR EACH ROW EXECUTE FUNCTION watch.note()"
                )
        return self

    def __exit__(self, *_: object) -> None:
        self.open()
        for table in _WATCHED:  # one lock at a time: workers may be at work, and hold these in another order
            with self._engine.begin() as connection:
                connection.exec_driver_sql(f"DROP TRIGGER watched ON {table}")

    def forget(self) -> None:
        """Begin the record anew."""
        with self._engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM watch.steps")

    def steps(self) -> Sequence[CommittedStep]:
        """What was committed, in the order in which it was written."""
        with self._engine.connect() as connection:
            return [CommittedStep(**row._mapping) for row in connection.execute(_STEPS)]

    def shut(self, agent_id: UUID, step: str) -> int:
        """Stop the agent's next transaction with that step, uncommitted. Returns the gate's key."""
        key = next(self._keys)
        if self._holder is None:
            self._holder = self._engine.connect()
        self._holder.execute(text("SELECT pg_advisory_lock(CAST(:key AS bigint))"), {"key": key})
        self._holder.execute(
            text("INSERT INTO watch.gates VALUES (:agent_id, :step, :key)"),
            {"agent_id": agent_id, "step": step, "key": key},
        )
        self._holder.commit()
        self._shut[key] = (agent_id, step)
        return key

    def blocked_keys(self) -> set[int]:
        """The keys of the gates at which a transaction stands."""
        with self._engine.connect() as connection:
            return {int(row.key) for row in connection.execute(_WAITING)}

    def break_off(self) -> None:
        """End the sessions of the transactions that stand at a gate, as a database that goes away does, and
        open all gates. Nothing of those transactions is committed."""
        with self._engine.begin() as connection:
            sessions = [row.pid for row in connection.execute(_WAITING)]
            connection.execute(_TERMINATE, {"sessions": sessions})
        self.open()

    def open(self) -> None:
        """Open all gates, and wait until the transactions that stood there have ended; of a process that is
        dead they are rolled back."""
        if self._holder is None:
            return
        with self._engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM watch.gates")
            sessions = [row.pid for row in connection.execute(_WAITING)]
        self._holder.execute(text("SELECT pg_advisory_unlock_all()"))
        self._holder.commit()
        self._holder.close()
        self._holder, self._shut = None, {}
        deadline = time.monotonic() + 10
        while self._at_work(sessions):
            assert time.monotonic() < deadline, "a transaction stands on, though its gate is open"
            time.sleep(0.02)

    def _at_work(self, sessions: Sequence[int]) -> bool:
        with self._engine.connect() as connection:
            return bool(connection.execute(_AT_WORK, {"sessions": list(sessions)}).scalar_one())


_STEPS = text("""
    SELECT extract(epoch FROM at)::float AS at, transaction, agent_id, job_id, generation, step
    FROM watch.steps ORDER BY n
""")
_WAITING = text("""
    SELECT objid AS key, pid FROM pg_locks
    WHERE locktype = 'advisory' AND NOT granted
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
""")
_TERMINATE = text("SELECT pg_terminate_backend(pid) FROM unnest(:sessions) AS pid")
_AT_WORK = text("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(:sessions) AND state <> 'idle'")
