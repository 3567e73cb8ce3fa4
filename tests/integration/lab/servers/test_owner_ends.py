"""Nothing is left running after the owner of a local stack, however it ended."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.lab.servers.processes import (
    Seen,
    command_line,
    descendants,
    environment,
    wait_until_gone,
)
from worker.lab.servers import LocalServices, LocalServicesError

ROOT = Path(__file__).parents[4]
GONE_WITHIN_S = 5.0


@contextmanager
def owner_of(
    folder: Path, *options: str, python: str = sys.executable, **popen: Any
) -> Iterator[subprocess.Popen[str]]:
    """The program ``owner_process.py`` in a process of its own, ended at the end whatever happened."""
    owner = subprocess.Popen(
        [python, "-m", "tests.integration.lab.servers.owner_process", str(folder), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        **popen,
    )
    with owner:
        try:
            yield owner
        finally:
            owner.kill()


def wait_until_up(owner: subprocess.Popen[str]) -> dict[str, Any]:
    assert owner.stdout is not None
    line = owner.stdout.readline()
    if not line:
        assert owner.stderr is not None
        pytest.fail(owner.stderr.read())
    answer = json.loads(line)
    assert isinstance(answer, dict)
    return answer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One data folder for all tests here: so each start also proves that the end before it spoilt nothing."""
    return tmp_path_factory.mktemp("owned") / "data"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda how: how.name)
@pytest.mark.parametrize("options", [(), ("--thread",)], ids=["main thread", "a thread"])
def test_servers_end_with_their_owner(folder: Path, how: signal.Signals, options: tuple[str, ...]) -> None:
    with owner_of(folder, *options) as owner:
        up = wait_until_up(owner)
        below = descendants(owner.pid)
        assert set(up["servers"]) <= {process.pid for process in below}
        owner.send_signal(how)
        wait_until_gone(below, GONE_WITHIN_S)


def test_servers_end_when_a_fork_of_the_owner_lives_on(folder: Path) -> None:
    with owner_of(folder, "--fork") as owner:
        up = wait_until_up(owner)
        below = {process for process in descendants(owner.pid) if process.pid != up["fork"]}
        owner.kill()
        try:
            wait_until_gone(below, GONE_WITHIN_S)
        finally:
            os.kill(up["fork"], signal.SIGKILL)


def test_servers_end_when_owner_and_supervisors_are_killed_together(folder: Path) -> None:
    with owner_of(folder) as owner:
        up = wait_until_up(owner)
        below = descendants(owner.pid)
        supervisors = [
            process.pid for process in below if "process_supervisor.py" in command_line(process.pid)
        ]
        assert len(supervisors) == len(up["servers"])
        for pid in (owner.pid, *supervisors):
            os.kill(pid, signal.SIGKILL)
        wait_until_gone(below, GONE_WITHIN_S)


def test_killed_while_the_database_is_being_made(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with owner_of(folder) as owner:
        unfinished = folder / "postgres" / "data.new"
        while not unfinished.exists():
            assert owner.poll() is None
            time.sleep(0.005)
        below = descendants(owner.pid)
        assert below
        owner.kill()
        wait_until_gone(below, GONE_WITHIN_S)
    with LocalServices(folder, valkey=False, durable=False) as services:
        assert _one(services.database_url, "SELECT 1") == 1


def test_a_start_straight_after_a_kill_waits_for_the_old_servers(folder: Path) -> None:
    with owner_of(folder) as owner:
        url = wait_until_up(owner)["database_url"]
        with psycopg.connect(_plain(url), autocommit=True) as connection:
            connection.execute("DROP TABLE IF EXISTS kept")
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        owner.kill()
        with LocalServices(folder, durable=False) as services:
            assert _one(services.database_url, "SELECT answer FROM kept") == 42


def test_the_folder_of_another_process_is_refused_with_its_name(folder: Path) -> None:
    with owner_of(folder) as owner:
        wait_until_up(owner)
        found = rf"in use by process {owner.pid} \(owner_process\.py, since 20"
        with pytest.raises(LocalServicesError, match=found):
            LocalServices(folder).start()


def test_no_secret_on_any_command_line_or_in_a_servers_environment(folder: Path) -> None:
    with owner_of(folder) as owner:
        up = wait_until_up(owner)
        secrets = [url.split("@")[0].rpartition(":")[2] for url in (up["database_url"], up["redis_url"])]
        assert all(len(secret) > 20 for secret in secrets)
        for path in Path("/proc").iterdir():
            if path.name.isdigit():
                line = command_line(int(path.name))
                assert not any(secret in line for secret in secrets), path
        for process in descendants(owner.pid):
            assert not any(secret in environment(process.pid) for secret in secrets)


def test_an_ordinary_user_can_run_it() -> None:
    if os.geteuid() != 0:
        pytest.skip("this whole run is an ordinary user's")
    home = Path(tempfile.mkdtemp(dir="/tmp"))
    shutil.chown(home, "nobody")
    as_nobody: dict[str, Any] = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}
    as_nobody["env"] = {
        "HOME": str(home),
        "PATH": os.defpath,
        "PYTHONPATH": f"{ROOT}:{sysconfig.get_path('purelib')}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    try:
        python = _python_within_reach(as_nobody)
        with owner_of(home / "data", python=python, **as_nobody) as owner:
            up = wait_until_up(owner)
            below: set[Seen] = descendants(owner.pid)
            assert {Path(f"/proc/{pid}").stat().st_uid for pid in up["servers"]} == {home.stat().st_uid}
            assert _one(up["database_url"], "SELECT 1") == 1
            owner.kill()
            wait_until_gone(below, GONE_WITHIN_S)
    finally:
        shutil.rmtree(home)


def _python_within_reach(as_nobody: dict[str, Any]) -> str:
    """This Python, or the system's of the same version where ours is out of reach (a home of mode 0700)."""
    for python in (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"):
        with contextlib.suppress(OSError):
            check = [python, "-c", "import worker, psycopg"]
            if subprocess.run(check, cwd="/", capture_output=True, check=False, **as_nobody).returncode == 0:
                return python
    pytest.skip("no other user can reach this checkout and a Python for it")


def _plain(url: str) -> str:
    return url.replace("+psycopg", "")


def _one(url: str, query: str) -> object:
    with psycopg.connect(_plain(url)) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]
