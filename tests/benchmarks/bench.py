"""What benchmarks stand on: a gateway, a database, a broker; and how long the gateway was away."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from sqlalchemy import Engine, text

from models.migrate import migrate
from tests.fleet import Fleet, make_fleet
from worker.database import make_engine
from worker.gateway.address import GatewayAddress
from worker.gateway.connection import GatewayConnection
from worker.gateway.device import DeviceKey
from worker.gateway.errors import GatewayError
from worker.lab.openclaw import OpenClaw, RunningGateway
from worker.lab.servers import LocalServices
from worker.lab.simulator import Simulator


@dataclass(frozen=True)
class Bench:
    """What all ways share: a gateway, a database and a broker."""

    process: Simulator | RunningGateway
    address: GatewayAddress
    engine: Engine
    fleet: Fleet
    folder: Path
    settings: dict[str, str]

    def agents(self, count: int) -> list[UUID]:
        """So many new agents, on no gateway yet."""
        return [self.fleet.add_agent(f"Agent {n}") for n in range(count)]

    def forget(self, agents: list[UUID]) -> None:
        """Delete the rows of agents that are gone from the gateway: the product would serve them."""
        with self.engine.begin() as connection:
            connection.execute(text("DELETE FROM agents WHERE id = ANY(:agents)"), {"agents": agents})


@contextmanager
def bench(target: str, services: LocalServices, folder: Path) -> Iterator[Bench]:
    """A gateway of its own (``sim:2026.9.6`` or ``openclaw:2026.9.6``), warm."""
    kind, _, release = target.partition(":")
    token = secrets.token_urlsafe(24)
    folder.mkdir(parents=True)
    process: Simulator | RunningGateway
    if kind == "openclaw":
        process = RunningGateway(OpenClaw.install(release), folder / "state", token=token)
    else:
        process = Simulator(release, token=token, state_dir=folder / "state")
    url = services.create_database(folder.name.replace("-", "_"))
    engine = make_engine(url)
    process.start()
    try:
        migrate(engine, standalone=True)
        root = str(folder / "agents")
        fleet = make_fleet(engine, url=process.url, token=token, workspace_root=root)
        settings = {
            "DATABASE_URL": url,
            "REDIS_URL": services.redis_url,
            "BASE_URL": "http://127.0.0.1:8000",
            "GATEWAY_DEVICE_KEY": str(folder / "device.pem"),
        }
        yield Bench(process, GatewayAddress(process.url, token), engine, fleet, folder, settings)
    finally:
        engine.dispose()
        process.stop()


class AwayClock:
    """Counts the seconds during which the gateway lets nobody in, and how often that began."""

    def __init__(self, address: GatewayAddress) -> None:
        self._address = address
        self._device = DeviceKey.generate()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.away_s = 0.0
        self.restarts = 0

    def __enter__(self) -> AwayClock:
        self._connection = GatewayConnection.open(self._address, self._device)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._connection.close()

    def _watch(self) -> None:
        while not self._stopped.is_set():
            if self._connection.wait_closed(0.05) is None:
                continue
            began = time.monotonic()
            self.restarts += 1
            while not self._stopped.is_set():
                try:
                    self._connection = GatewayConnection.open(self._address, self._device, deadline_s=5)
                    break
                except GatewayError:
                    time.sleep(0.02)
            self.away_s += time.monotonic() - began
