"""The demo's processes: Postgres, Valkey, a gateway and a worker, all of which end with this process."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol, Self

from sqlalchemy import Engine

from models.migrate import migrate
from worker.database import make_engine
from worker.errors import PermanentError
from worker.gateway.address import GatewayAddress
from worker.gateway.client import ClientPool, GatewayClient
from worker.gateway.device import DeviceKey
from worker.lab.openclaw import OpenClaw, RunningGateway
from worker.lab.processes import Processes, await_sign, line_with, start_python
from worker.lab.servers import LocalServices
from worker.lab.servers.supervised_process import SupervisedProcess
from worker.lab.simulated_gateway import PASSED_ON, RELEASE, SimulatedGateway

GatewayKind = Literal["simulator", "openclaw"]
Progress = Callable[[str], None]

_BASE_URL = "http://127.0.0.1:8000"


class DemoFailedError(PermanentError):
    """The demo failed; the sentence says where."""


class DemoGateway(Protocol):
    """What the demo needs of a gateway, simulated or real."""

    token: str
    log_path: Path

    @property
    def url(self) -> str: ...

    @property
    def running(self) -> bool: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


class DemoStack(Processes):
    """All processes of the demo, in a temporary folder that is deleted at the end. A context manager."""

    def __init__(self, kind: GatewayKind) -> None:
        super().__init__()
        self.kind = kind
        self.gateway_name = f"{'a simulated' if kind == 'simulator' else 'a real'} OpenClaw {RELEASE}"
        self._gateway: DemoGateway | None = None
        self._worker: SupervisedProcess | None = None

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="provisioner-demo-"))
        self._open.callback(shutil.rmtree, self._folder, ignore_errors=True)
        self._services = LocalServices(self._folder / "services", durable=False)
        self._device = self._folder / "device.pem"
        self._worker_log = self._folder / "worker.log"
        return self

    @property
    def gateway(self) -> DemoGateway:
        """The gateway, once it has started."""
        assert self._gateway is not None
        return self._gateway

    @property
    def journal(self) -> Path | None:
        """The simulator's journal; a real gateway keeps none."""
        return self._gateway.journal if isinstance(self._gateway, SimulatedGateway) else None

    @cached_property
    def engine(self) -> Engine:
        """An engine for the demo's own database."""
        engine = make_engine(self._services.database_url, pool_size=2)
        self._open.callback(engine.dispose)
        return engine

    def start_services(self) -> None:
        """Start Postgres and Valkey. Raises LocalServicesError."""
        self._open.callback(self._services.stop)
        self._services.start()

    def migrate(self) -> str:
        """Create all tables, Mission Control's included, and return the schema's revision."""
        return migrate(self.engine, standalone=True)[1]

    def start_gateway(self, progress: Progress) -> None:
        """Start a gateway and wait until it is ready. Raises InstallFailed, GatewayNotReady,
        ProcessFailedError."""
        folder = self._folder / "gateway"
        if self.kind == "simulator":
            self._gateway = SimulatedGateway(folder, journal=folder / "journal.jsonl")
        else:
            installed = OpenClaw.install(
                RELEASE, progress=lambda line: progress(f"{line} (the first time takes a minute or two)")
            )
            self._gateway = RunningGateway(installed, folder)
            progress("OpenClaw is starting: 10 to 60 s")
        self._open.callback(self._gateway.stop)
        self._gateway.start()

    def start_worker(self) -> None:
        """Start a worker and wait until it takes jobs. Raises ProcessFailedError."""
        environment = {
            **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
            "DATABASE_URL": self._services.database_url,
            "REDIS_URL": self._services.redis_url,
            "BASE_URL": _BASE_URL,
            "GATEWAY_DEVICE_KEY": str(self._device),
        }
        arguments = ["-A", "worker.app", "worker"]
        self._worker = worker = start_python("celery", arguments, environment, self._worker_log)
        self._open.callback(worker.stop)
        await_sign(lambda: bool(line_with(self._worker_log, "ready")), worker, "The worker")

    def client(self) -> GatewayClient:
        """A client for the gateway, with the worker's device key."""
        return self._clients.client(GatewayAddress(self.gateway.url, self.gateway.token))

    @cached_property
    def _clients(self) -> ClientPool:
        pool = ClientPool(DeviceKey.load_or_create(self._device))
        self._open.callback(pool.close_all)
        return pool

    def boot_id(self) -> str | None:
        """An id that changes when the gateway restarts."""
        boot = self.client().hello().boot_id
        self.client().disconnect()
        return boot

    def check(self) -> None:
        """Raise DemoFailedError if a process has ended that should not have."""
        if self._worker is not None and self._worker.poll() is not None:
            raise DemoFailedError("The worker ended by itself.")
        if self._gateway is not None and not self._gateway.running:
            raise DemoFailedError("The gateway ended by itself.")

    def keep_logs(self, error: Exception) -> None:
        """After a failure, move the logs out of the temporary folder, and say where they are."""
        logs = [self._worker_log, *([self._gateway.log_path] if self._gateway else [])]
        texts = [f"== {log.name}\n{log.read_text(errors='replace')}" for log in logs if log.exists()]
        if not texts:
            return
        descriptor, path = tempfile.mkstemp(prefix="provisioner-demo-", suffix=".log")
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write("\n".join(texts))
        error.add_note(f"The logs of the worker and the gateway are in {path}")
