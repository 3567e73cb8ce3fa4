"""The command, run as an operator runs it, on a database of the test's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from tests.worker_process import WorkerProcess
from worker import standalone
from worker.cli import environment
from worker.cli.app import app
from worker.lab.servers.ports import free_port
from worker.lab.simulator import Simulator

TOKEN = "right-t0ken"


class Provisioner:
    """``run(...)`` is ``provisioner ...``; output never comes with a traceback."""

    def __init__(self, database_url: str, device_key: Path) -> None:
        self.env: dict[str, str | None] = {
            "DATABASE_URL": database_url,
            "GATEWAY_DEVICE_KEY": str(device_key),
            "REDIS_URL": None,
            "BASE_URL": None,
            "OPENCLAW_GATEWAY_TOKEN": None,
            "COLUMNS": "80",
        }

    def run(self, *arguments: str, stdin: str = "") -> Result:
        result = CliRunner(env=self.env).invoke(app, list(arguments), input=stdin)
        if environment.engine.cache_info().currsize:
            environment.engine().dispose()
            environment.engine.cache_clear()
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def json(self, *arguments: str, code: int = 0, stdin: str = "") -> Any:
        """What ``--json`` prints, which is all that stands on stdout."""
        result = self.run(*arguments, "--json", stdin=stdin)
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    def refused(self, *arguments: str, code: int = 2, stdin: str = "") -> str:
        """The sentence on stderr of a command that ends with ``code``; stdout stays empty."""
        result = self.run(*arguments, stdin=stdin)
        assert result.exit_code == code, result.output
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        return result.stderr.strip()


@pytest.fixture
def empty(empty_database_url: str, tmp_path: Path) -> Provisioner:
    """On a database with nothing in it."""
    return Provisioner(empty_database_url, tmp_path / "device.pem")


@pytest.fixture
def provisioner(engine: Engine, tmp_path: Path) -> Provisioner:
    """On a migrated standalone database without rows."""
    return Provisioner(engine.url.render_as_string(hide_password=False), tmp_path / "device.pem")


def add_gateway_with_board(engine: Engine, names: tuple[str, str], url: str, token: str) -> UUID:
    """As the commands do it, in a fraction of their time. The board's id."""
    gateway, board = names
    with engine.begin() as connection:
        key = standalone.add_gateway(connection, gateway, url, token, "~/.openclaw")
        return standalone.add_board(connection, board, key)


@pytest.fixture
def fleet(provisioner: Provisioner, engine: Engine) -> Provisioner:
    """With a gateway ``g`` that nobody runs, a board ``Launch`` and the agents Ada (lead) and Ben."""
    board = add_gateway_with_board(engine, ("g", "Launch"), "ws://127.0.0.1:9", "t0ken")
    with engine.begin() as connection:
        standalone.add_agent(connection, standalone.NewAgent("Ada", board, is_board_lead=True))
        standalone.add_agent(connection, standalone.NewAgent("Ben", board))
    return provisioner


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[Simulator]:
    with Simulator("2026.9.6", token=TOKEN, state_dir=tmp_path / "state", reply="Yes.") as running:
        yield running


@pytest.fixture
def staffed(
    provisioner: Provisioner, engine: Engine, simulator: Simulator, redis_url: str, tmp_path: Path
) -> Iterator[Provisioner]:
    """Agents Ada on a living gateway, Bea on one that refuses us, Cid on one that is away; a worker."""
    gateways = {
        "Ada": (simulator.url, TOKEN),
        "Bea": (f"{simulator.url}/other", "wr0ng"),
        "Cid": (f"ws://127.0.0.1:{free_port()}", TOKEN),
    }
    for name, (url, token) in gateways.items():
        board = add_gateway_with_board(engine, (f"gateway of {name}", f"Board {name}"), url, token)
        with engine.begin() as connection:
            standalone.add_agent(connection, standalone.NewAgent(name, board))
    settings = {
        "DATABASE_URL": str(provisioner.env["DATABASE_URL"]),
        "GATEWAY_DEVICE_KEY": str(provisioner.env["GATEWAY_DEVICE_KEY"]),
        "REDIS_URL": redis_url,
        "BASE_URL": "http://127.0.0.1:8000",
        "RETRY_INLINE_S": "0.5",
        "RETRY_TIMEOUT_S": "3",
        "DISPATCH_INTERVAL_S": "0.2",
    }
    worker = WorkerProcess(tmp_path / "worker.log", settings)
    yield provisioner
    worker.stop()
