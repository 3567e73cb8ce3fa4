"""``celery -A worker.app worker``: right without flags, and refused with a sentence where it cannot work."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.integration.worker.workshop import Workshop
from tests.worker_process import ROOT
from worker.local import LocalServices


@pytest.fixture(scope="module")
def start() -> Callable[..., tuple[int, str]]:
    """Runs a worker that is expected to end by itself; its exit code and what it said."""

    def run(environment: Mapping[str, str], *flags: str) -> tuple[int, str]:
        argv = [sys.executable, "-m", "celery", "-A", "worker.app", "worker", "-n", "s@%h", *flags]
        done = subprocess.run(
            argv,
            env={"PATH": os.defpath, "HOME": os.environ.get("HOME", "/"), **environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_an_incomplete_environment_is_named_at_once(start: Callable[..., tuple[int, str]]) -> None:
    code, said = start({"REDIS_URL": "http://x", "LEASE_S": "soon"})
    assert code != 0
    assert "Traceback" not in said
    for name in ("DATABASE_URL is not set", "BASE_URL is not set", "REDIS_URL: must begin", "LEASE_S: "):
        assert name in said


def test_another_pool_is_refused(start: Callable[..., tuple[int, str]], workshop: Workshop) -> None:
    code, said = start(workshop.environment, "--pool=solo")
    assert code != 0
    assert "This worker runs on threads alone: leave out --pool=" in said
    assert "Traceback" not in said


def test_a_database_that_was_not_migrated_is_refused(
    start: Callable[..., tuple[int, str]], workshop: Workshop, services: LocalServices
) -> None:
    url = services.create_database("not_migrated")
    code, said = start({**workshop.environment, "DATABASE_URL": url})
    assert code != 0
    assert "run `provisioner migrate`" in said
    assert "Traceback" not in said


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
    assert "16 (thread)" in said
    for queue in ("provisioning", "sync", "control"):
        assert f"> {queue}" in said
