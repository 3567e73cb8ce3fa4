"""The processes of ``provisioner serve``, all of which end with this one."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import Engine, make_url, select

from models import Gateway
from models.migrate import migrate
from worker.cli.environment import engine_at
from worker.lab.processes import Processes, ProcessFailedError, await_sign, start_python
from worker.lab.servers import LocalServices
from worker.lab.servers.ports import is_free
from worker.lab.servers.supervised_process import SupervisedProcess
from worker.lab.simulated_gateway import SimulatedGateway
from worker.settings import Settings
from worker.standalone import upsert_gateway

GATEWAY = "simulator"
EXPORTS = "environment.sh"
_AS_ROOT = "ignore:You're running the worker with superuser privileges"
"""Celery's advice to a root account, which `serve` may be run by; it would stand above everything else."""

# A worker's bodies end within 30 s of SIGTERM; with what comes after it, all are gone within 45 s.
_WORKER_GRACE_S = 32.0
_OTHERS_GRACE_S = 2.0
_NAMES = {"worker": "The worker", "beat": "Beat", "flower": "Flower"}


@dataclass(frozen=True)
class Plan:
    """What ``serve`` runs. ``database``, ``broker``: whether to start it; false if the environment names one.

    ``settings`` holds placeholders for URLs that are not known before their servers run.
    """

    folder: Path
    settings: Settings
    database: bool
    broker: bool
    flower_port: int
    gateway: bool


class ServeStack(Processes):
    """A context manager that stops what it started in reverse order: Flower, beat, the worker, the gateway,
    the servers."""

    def __init__(self, plan: Plan, follow: Callable[[str, Path], None]) -> None:
        super().__init__()
        self.plan = plan
        self._follow = follow
        self._services = LocalServices(plan.folder, postgres=plan.database, valkey=plan.broker)
        self._watched: list[tuple[str, Callable[[], bool], Path]] = []

    @property
    def database_url(self) -> str:
        plan = self.plan
        return self._services.database_url if plan.database else plan.settings.database_url.get_secret_value()

    @property
    def redis_url(self) -> str:
        plan = self.plan
        return self._services.redis_url if plan.broker else plan.settings.redis_url.get_secret_value()

    @property
    def exports(self) -> Path:
        """A file to source in a shell, so that commands use this stack; mode 0600, deleted at the end."""
        return self.plan.folder / EXPORTS

    def start(self, told: Callable[[str], None]) -> None:
        """Start everything, and report each step. Raises LocalServicesError, ProcessFailedError,
        CannotAddError, MixedDatabaseError and what a database raises."""
        self._start_servers(told)
        engine = engine_at(self.database_url)
        try:
            # Tables like Mission Control's are made only where it will never come to make its own.
            own = self.plan.database or self.plan.gateway
            told(f"Tables: revision {migrate(engine, standalone=own)[1]}")
            if self.plan.gateway:
                told(f"Gateway: {self._start_gateway(engine)}")
        finally:
            engine.dispose()
        self._write_exports()
        self._start_celery()

    def check(self) -> None:
        """Raise ProcessFailedError if a process has ended that should not have."""
        for name, alive, log in self._watched:
            if not alive():
                raise ProcessFailedError(f"{name} ended by itself. What it said is in {log}")

    def _start_servers(self, told: Callable[[str], None]) -> None:
        self._open.callback(self._services.stop)
        self._services.start()
        if self.plan.database:
            told(f"Postgres: {make_url(self.database_url).render_as_string()}")
            postgres = self._services.postgres
            self._watched.append(("Postgres", lambda: postgres.running, self.plan.folder / "postgres.log"))
        if self.plan.broker:
            told(f"Valkey: {make_url(self.redis_url).render_as_string()}")
            valkey = self._services.valkey
            self._watched.append(("Valkey", lambda: valkey.running, self.plan.folder / "valkey.log"))

    def _start_gateway(self, engine: Engine) -> str:
        with engine.connect() as connection:
            url = connection.execute(select(Gateway.url).where(Gateway.name == GATEWAY)).scalar()
        port = urlsplit(url or "").port or 0
        gateway = SimulatedGateway(self.plan.folder / "gateway", port=port if port and is_free(port) else 0)
        self._open.callback(gateway.stop)
        gateway.start()
        self._watched.append(("The simulated gateway", lambda: gateway.running, gateway.log_path))
        self._follow("gateway", gateway.log_path)
        with engine.begin() as connection:
            upsert_gateway(connection, GATEWAY, gateway.url, gateway.token, "~/.openclaw")
        return gateway.url

    def _write_exports(self) -> None:
        ours = {
            "DATABASE_URL": self.database_url if self.plan.database else None,
            "REDIS_URL": self.redis_url if self.plan.broker else None,
            "BASE_URL": self.plan.settings.base_url,
            "GATEWAY_DEVICE_KEY": str(self.plan.settings.gateway_device_key.absolute()),
            "WEBHOOK_KEY": os.environ.get("WEBHOOK_KEY"),
            "BUNDLE_KEY": os.environ.get("BUNDLE_KEY"),
        }
        self.exports.unlink(missing_ok=True)
        self._open.callback(self.exports.unlink, missing_ok=True)
        with open(os.open(self.exports, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.writelines(f"export {name}={shlex.quote(value)}\n" for name, value in ours.items() if value)

    def _start_celery(self) -> None:
        environment = {
            **os.environ,
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "BASE_URL": self.plan.settings.base_url,
        }
        life, port = self.plan.folder / "worker.life", self.plan.flower_port
        life.unlink(missing_ok=True)
        flower = ["flower", "--address=127.0.0.1", f"--port={port}", "--read_only=True"]
        warnings = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), _AS_ROOT]))
        of_worker = {**environment, "HEALTH_FILE": str(life), "PYTHONWARNINGS": warnings}
        worker = self._celery(["worker"], of_worker, _WORKER_GRACE_S)
        self._celery(["beat"], {**environment, "HEALTH_FILE": ""}, _OTHERS_GRACE_S)
        await_sign(life.exists, worker, "The worker")
        shown = self._celery(flower, environment, _OTHERS_GRACE_S)  # it complains where no worker answers
        await_sign(lambda: not is_free(port), shown, "Flower")

    def _celery(
        self, program: list[str], environment: Mapping[str, str], grace_s: float
    ) -> SupervisedProcess:
        name = program[0]
        log = self.plan.folder / f"{name}.log"
        log.unlink(missing_ok=True)
        log.touch(mode=0o600)
        arguments = ["--quiet", "-A", "worker.app", *program]
        process = start_python("celery", arguments, environment, log, cwd=Path.cwd(), grace_s=grace_s)
        self._open.callback(process.stop)
        self._watched.append((_NAMES[name], lambda: process.poll() is None, log))
        self._follow(name, log)
        return process
