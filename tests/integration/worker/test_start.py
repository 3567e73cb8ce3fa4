"""``celery -A worker.app worker``: right without flags, and refused with a sentence where it cannot work."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import redis

from tests.integration.agents.fleet import execute
from tests.integration.worker.workshop import Workshop
from tests.worker_process import ROOT, CeleryProcess
from worker.database import make_engine
from worker.lab.servers import LocalServices


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Runs a worker that is expected to end by itself; its exit code and what it said."""

    def run(environment: Mapping[str, str], *flags: str) -> tuple[int, str]:
        arguments = ["-A", "worker.app", "worker", "-n", "s@%h", *flags]
        worker = CeleryProcess(tmp_path / "worker.log", arguments, environment, sign=b"")
        try:
            return worker.wait(60), worker.log()
        finally:
            worker.kill()

    return run


def test_an_incomplete_environment_is_named_at_once() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "worker.app", "worker"],
        env={"PATH": os.defpath, "HOME": "/", "REDIS_URL": "http://x", "LEASE_S": "soon"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "Traceback" not in said
    for name in ("DATABASE_URL is not set", "BASE_URL is not set", "REDIS_URL: must begin", "LEASE_S: "):
        assert name in said


@pytest.mark.parametrize("command", ["worker", "beat", "flower"])
def test_a_url_that_cannot_be_right_ends_each_process_without_a_piece_of_its_password(
    command: str, workshop: Workshop, tmp_path: Path
) -> None:
    wrong = {
        "DATABASE_URL": "postgresql+psycopg://u:s3k@r3t@127.0.0.1/d",
        "REDIS_URL": "redis://:s3k#r3t@127.0.0.1:6379/0",
        "HEALTH_FILE": str(tmp_path / "none" / "sign"),
    }
    done = celery(command, {**workshop.environment, **wrong})
    said = done.stdout + done.stderr
    assert done.returncode == 2
    assert not any(sign in said for sign in ("s3k", "r3t", "Traceback", "ready"))
    assert "  REDIS_URL: holds an unencoded #" in said
    if command != "flower":
        assert "  DATABASE_URL: holds an unencoded @" in said
        assert "  HEALTH_FILE: " in said


def test_what_the_servers_refuse_is_named_together(workshop: Workshop) -> None:
    wrong = {
        "DATABASE_URL": re.sub(r":[^:@]+@", ":wr0ng@", workshop.database_url),
        "REDIS_URL": re.sub(r"/\d+$", "/99", workshop.redis_url),
    }
    done = celery("worker", {**workshop.environment, **wrong})
    assert done.returncode == 2
    assert "  DATABASE_URL: the server refuses its user or password" in done.stderr
    assert "  REDIS_URL: the server has no database 99" in done.stderr
    assert not any(sign in done.stdout + done.stderr for sign in ("wr0ng", "Traceback", "ready"))


def celery(command: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "celery", "-A", "worker.app", command],
        env={"PATH": os.defpath, "HOME": "/", **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_another_pool_is_refused(start: Callable[..., tuple[int, str]], workshop: Workshop) -> None:
    code, said = start(workshop.environment, "--pool=solo")
    assert code != 0
    assert "This worker runs on threads alone: leave out --pool=solo." in said
    assert "Traceback" not in said


def test_a_database_that_was_not_migrated_is_refused(
    start: Callable[..., tuple[int, str]], workshop: Workshop, services: LocalServices
) -> None:
    url = services.create_database("not_migrated")
    code, said = start({**workshop.environment, "DATABASE_URL": url})
    assert code != 0
    assert "run `provisioner migrate`" in said
    assert "Traceback" not in said


def test_a_worker_that_cannot_begin_ends_and_takes_no_messages(
    start: Callable[..., tuple[int, str]], workshop: Workshop, services: LocalServices
) -> None:
    """Celery only logs what goes wrong when a worker is ready: it would consume without its clock."""
    url = services.create_database("strange")
    engine = make_engine(url)
    execute(engine, "CREATE SCHEMA provisioner")
    execute(engine, "CREATE TABLE provisioner.alembic_version AS SELECT 10 AS version_num")
    engine.dispose()
    code, said = start({**workshop.environment, "DATABASE_URL": url})
    assert code == 1
    assert "this worker cannot begin" in said


def test_a_device_key_that_cannot_be_used_is_refused(
    start: Callable[..., tuple[int, str]], workshop: Workshop, tmp_path: Path
) -> None:
    key = tmp_path / "device.pem"
    key.write_text("no key")
    key.chmod(0o600)
    code, said = start({**workshop.environment, "GATEWAY_DEVICE_KEY": str(key)})
    assert code != 0
    assert "device.pem" in said
    assert "Traceback" not in said


def test_without_flags_it_runs_threads_on_all_queues(workshop: Workshop) -> None:
    said = workshop.workers[0].log()
    assert "48 (thread)" in said
    for queue in ("provisioning", "sync", "control"):
        assert f"> {queue}" in said


def test_a_newer_database_and_a_broker_that_may_drop_messages_are_warnings(
    open_workshop: Callable[[], Workshop],
) -> None:
    workshop = open_workshop()
    execute(workshop.engine, "UPDATE provisioner.alembic_version SET version_num = '9999'")
    with redis.Redis.from_url(workshop.redis_url) as broker:
        broker.config_set("maxmemory-policy", "allkeys-lru")
        try:
            worker = workshop.start_worker()
        finally:
            broker.config_set("maxmemory-policy", "noeviction")
    assert "the database is newer than this worker: revision 9999" in worker.log()
    assert "its maxmemory-policy is allkeys-lru, set it to noeviction" in worker.log()
    worker.stop()


def test_a_worker_that_is_newer_than_its_database_is_refused(
    open_workshop: Callable[[], Workshop], start: Callable[..., tuple[int, str]]
) -> None:
    workshop = open_workshop()
    execute(workshop.engine, "UPDATE provisioner.alembic_version SET version_num = '0001'")
    code, said = start(workshop.environment)
    assert code != 0
    assert "The database stands at revision 0001, this version needs" in said
