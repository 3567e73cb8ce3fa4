"""docs/enqueue.md, run as it stands: by row, by send_task, once.

A broker that is away: test_broker_away.py; the table of tasks: tests/unit/jobs/test_kinds.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from tests.integration.agents.fleet import execute, insert_job
from tests.integration.worker.workshop import Place, Workshop

ROOT = Path(__file__).parents[3]
DOCS = (ROOT / "docs" / "enqueue.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
SQL = re.findall(r"```sql\n(.*?)```", DOCS, re.DOTALL)


def run(
    block: str, workshop: Workshop, agent_id: object, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The block as a service of its own, which has nothing of ours on its path."""
    given = {"DATABASE_URL": workshop.database_url, "REDIS_URL": workshop.redis_url, **environment}
    code = f"agent_id = {str(agent_id)!r}\n{block}\nprint(dict(globals()).get('status'))"
    return subprocess.run(
        [sys.executable, "-I", "-c", code],
        env={"PATH": os.defpath, **given},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def place(workshop: Workshop) -> Place:
    return workshop.place("2026.9.6", agents=2)


def test_a_row_and_a_message_by_the_book_are_served(workshop: Workshop, place: Place) -> None:
    insert, grants = SQL
    by_row, by_message = place.fleet.agents
    for _ in range(2):
        execute(workshop.engine, insert.replace(":agent_id", "CAST(:agent_id AS uuid)"), agent_id=by_row)
    update, send, wait, *_ = PYTHON
    sent = run(send, workshop, by_message)
    assert sent.returncode == 0, sent.stderr
    again = run(send, workshop, by_message)
    assert again.returncode == 0, again.stderr
    waited = run(wait, workshop, by_message)
    assert waited.stdout.strip() == "succeeded", waited.stdout + waited.stderr
    workshop.eventually(lambda: statuses(workshop, "sign-up-4711") == ["succeeded"])
    assert statuses(workshop, "sign-up-4713") == ["succeeded"]
    done = run(update, workshop, by_row)
    assert done.returncode == 0, done.stderr
    workshop.eventually(lambda: statuses(workshop, "profile-changed-4712") == ["succeeded"])
    with workshop.engine.begin() as connection:
        connection.execute(text("CREATE ROLE web"))
        for statement in grants.strip().split(";")[:-1]:
            connection.execute(text(statement))
        connection.execute(text("DROP OWNED BY web"))
        connection.execute(text("DROP ROLE web"))


def test_a_listener_by_the_book_is_told(workshop: Workshop, place: Place) -> None:
    listen, agent_id = PYTHON[3], place.fleet.agents[0]
    job_id = uuid4()
    assert len(listen.split("import psycopg\n")[1].strip().splitlines()) <= 12
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(run, f"job_id = {str(job_id)!r}\n{listen}", workshop, agent_id)
        workshop.eventually(lambda: listeners(workshop))
        began = time.monotonic()
        insert_job(workshop.engine, agent_id, id=job_id)
        waited = waits.result()
    assert waited.stdout.strip() == "succeeded", waited.stdout + waited.stderr
    assert time.monotonic() - began < 25, "it was not told, but looked again after 30 seconds"


def listeners(workshop: Workshop) -> bool:
    """Whether a session listens and has looked at its job's row."""
    with workshop.engine.connect() as connection:
        query = """
            SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND state = 'idle'
                AND query LIKE 'SELECT status, error, result%'
        """
        return bool(connection.execute(text(query)).scalar_one())


def test_who_waits_for_what_was_refused_hears_it(workshop: Workshop, place: Place) -> None:
    _, send, wait, *_ = PYTHON
    name = "sign-up-4714"
    agent_id = place.fleet.agents[0]
    refused = run(send.replace("sign-up-4713", name), workshop, "not-a-uuid")
    assert refused.returncode == 0, refused.stderr
    waiting = f"{wait.replace('sign-up-4713', name)}\nprint(error)"
    waited = run(waiting, workshop, agent_id)
    assert "agent_id must be a UUID" in waited.stdout, waited.stdout + waited.stderr
    assert waited.stdout.endswith("failed\n")
    put_right = run(send.replace("sign-up-4713", name), workshop, agent_id)
    assert put_right.returncode == 0, put_right.stderr
    workshop.eventually(lambda: sorted(statuses(workshop, name)) == ["failed", "succeeded"])
    assert run(waiting, workshop, agent_id).stdout.endswith("succeeded\n")


def statuses(workshop: Workshop, request_id: str) -> list[Any]:
    with workshop.engine.connect() as connection:
        found = connection.execute(
            text("SELECT status FROM provisioner.jobs WHERE request_id = :id"), {"id": request_id}
        )
        return [row.status for row in found]
