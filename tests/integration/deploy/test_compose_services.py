"""The very commands and health checks of docker-compose.yml, run on this machine's servers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.compose import ROOT, configured
from worker.lab.servers.binaries import find_valkey
from worker.lab.servers.ports import free_port
from worker.lab.servers.supervised_process import Program, SupervisedProcess

_BIN = Path(sys.executable).parent


def service(name: str) -> dict[str, Any]:
    found: dict[str, Any] = configured()["services"][name]
    return found


class Started:
    """The services' processes, each in an empty folder, with no more environment than compose gives them."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.environment = {
            "PATH": f"{_BIN}:{os.defpath}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            "GATEWAY_DEVICE_KEY": str(folder / "device.pem"),
            **environment,
        }
        self._folder = folder
        self._running: list[SupervisedProcess] = []

    def start(self, name: str, command: list[str], **more: str) -> tuple[SupervisedProcess, Path]:
        folder = self._folder / name
        folder.mkdir()
        log = self._folder / f"{name}.log"
        health = {"HEALTH_FILE": str(self._folder / f"{name}.health")}
        program = [str(_BIN / command[0]) if (_BIN / command[0]).exists() else command[0], *command[1:]]
        made = SupervisedProcess(
            Program(program, env={**self.environment, **health, **more}, log_path=log, cwd=folder)
        )
        self._running.append(made)
        return made, log

    def look(self, name: str, check: list[str]) -> int:
        """The health check's exit code."""
        health = {"HEALTH_FILE": str(self._folder / f"{name}.health")}
        return subprocess.run(check, env={**self.environment, **health}, capture_output=True).returncode

    def end(self) -> None:
        for process in self._running:
            process.stop()


@pytest.fixture
def started(tmp_path: Path, database_url: str, redis_url: str) -> Iterator[Started]:
    urls = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "BASE_URL": "http://127.0.0.1:8000"}
    stack = Started(tmp_path, urls)
    yield stack
    stack.end()


def eventually(what: Callable[[], bool], log: Path, within_s: float = 60) -> None:
    until = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < until, log.read_text(errors="replace")[-3000:]
        time.sleep(0.2)


def test_migrate_ends_well_each_time(started: Started, empty_database_url: str) -> None:
    command = service("migrate")["command"]
    environment = {**started.environment, "DATABASE_URL": empty_database_url}
    for _ in range(2):
        ran = subprocess.run(
            [_BIN / command[0], *command[1:]], env=environment, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("name", ["worker", "beat"])
def test_a_process_becomes_healthy_and_stops_in_time(started: Started, tmp_path: Path, name: str) -> None:
    check = [part for part in service(name)["healthcheck"]["test"] if part != "CMD"]
    check[0] = sys.executable
    process, log = started.start(name, service(name)["command"])
    assert started.look(name, check) == 1
    eventually(lambda: started.look(name, check) == 0, log)
    began = time.monotonic()
    process.stop()
    assert time.monotonic() - began < 45
    assert not any((tmp_path / name).iterdir()), "the folder it stands in is read-only"
    assert "Traceback" not in log.read_text(errors="replace")


def test_a_worker_without_a_broker_is_not_healthy(started: Started, tmp_path: Path) -> None:
    name, check = "worker", [sys.executable, "-m", "worker.health"]
    _, log = started.start(name, service(name)["command"], REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    eventually(lambda: "Cannot connect" in log.read_text(errors="replace"), log)
    assert started.look(name, check) == 1


def test_flower_is_healthy_and_shows_nothing_without_the_password(started: Started) -> None:
    flower = service("flower")
    for variable in ("DATABASE_URL", "BASE_URL"):
        del started.environment[variable]
    port = str(free_port())
    command = [part.replace("5555", port) for part in flower["command"]]
    check = [part.replace("5555", port) for part in flower["healthcheck"]["test"] if part != "CMD"]
    check[0] = sys.executable
    _, log = started.start(
        "flower",
        [*command, "--address=127.0.0.1"],
        FLOWER_BASIC_AUTH=flower["environment"]["FLOWER_BASIC_AUTH"],
    )
    eventually(lambda: started.look("flower", check) == 0, log)
    script = (
        "import sys, urllib.request as u\n"
        "try: print(u.urlopen(sys.argv[1]).status)\n"
        "except u.HTTPError as error: print(error.code)"
    )
    asked = subprocess.run(
        [sys.executable, "-c", script, f"http://127.0.0.1:{port}/workers"], capture_output=True, text=True
    )
    assert asked.stdout.strip() == "401", asked.stderr


def test_the_figures_are_served(started: Started) -> None:
    metrics = service("metrics")
    address = f"127.0.0.1:{free_port()}"
    port = address.rpartition(":")[2]
    command = [part.replace("0.0.0.0:9108", address) for part in metrics["command"]]
    check = [part.replace("9108", port) for part in metrics["healthcheck"]["test"] if part != "CMD"]
    check[0] = sys.executable
    process, log = started.start("metrics", command)
    eventually(lambda: started.look("metrics", check) == 0, log)
    process.stop()
    assert "Traceback" not in log.read_text(errors="replace")


@pytest.mark.parametrize("password", ["r3dis", "p@:/?#[]%25 \"'\\\\&=;$ss"])
def test_redis_wants_its_password_and_keeps_everything(tmp_path: Path, password: str) -> None:
    servers, data, port = tmp_path / "bin", tmp_path / "data", free_port()
    servers.mkdir()
    data.mkdir()
    (servers / "redis-server").symlink_to(find_valkey().path)
    shell, flags, script = service("redis")["command"]
    script = script.replace("$$", "$").replace("/data", f"{data} --bind 127.0.0.1 --port {port}")
    environment = {"PATH": f"{servers}:{os.defpath}", "REDIS_PASSWORD": password}
    log = tmp_path / "log"
    shell = str(shutil.which(shell))
    server = SupervisedProcess(Program([shell, flags, script], env=environment, log_path=log, cwd=tmp_path))
    try:
        eventually(lambda: "Ready to accept" in log.read_text(errors="replace"), log)
        with redis.Redis(port=port, password=password) as client:
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert client.config_get("appendonly") == {"appendonly": "yes"}
        with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
    finally:
        server.stop()
