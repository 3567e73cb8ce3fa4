"""A scene in this process in which one thing fails, and which works on until everything has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from redis.exceptions import ConnectionError
from sqlalchemy import Engine

from tests.chaos.points import Dead, Failing
from tests.fleet import EMPTY_ALL_TABLES
from tests.integration.agents.fleet import main_with_block
from tests.integration.sync.scene import Scene, Sent, make_scene
from worker.database import DATABASE_AWAY
from worker.gateway.client import ClientPool
from worker.gateway.device import DeviceKey
from worker.jobs.outbox import publish_due
from worker.lab.simulator import Simulator
from worker.runtime.services import Services
from worker.settings import Settings

MOST_STEPS = 3_000
SETTINGS = Settings(
    database_url="postgresql+psycopg://nobody@127.0.0.1:9/none",  # type: ignore[arg-type]
    redis_url="redis://127.0.0.1:9/0",  # type: ignore[arg-type]
    base_url="http://127.0.0.1:8000",
    retry_inline_s=0,
    retry_timeout_s=600,
    lease_s=30,
    roster_batch_window_s=0,
)


@dataclass
class BrokenScene(Scene):
    """``failing``: what counts and fails; ``deaths``: how many workers died."""

    failing: Failing | None = None
    new_services: Callable[[], Services] | None = None
    deaths: int = 0
    in_hand: Sent | None = field(default=None)

    def send(self, task: str, kwargs: object, task_id: str | None) -> None:
        if self.failing is not None:
            self.failing.before_message()
        super().send(task, kwargs, task_id)  # type: ignore[arg-type]
        if self.failing is not None:
            self.failing.after_message()

    def one(self) -> None:
        self.in_hand = self.messages[0]
        super().one()
        self.in_hand = None

    def provision(self, *agents: UUID) -> None:
        """Bring them to life, none woken, whatever the gateway has to say at first."""
        for agent in agents:
            self.ask("provision_agent", agent_id=agent, wake=False)
        self.work_on()

    def work_on(self) -> None:
        """Serve and publish until no job is open, reviving who dies, and with what is parked due at once."""
        for _ in range(MOST_STEPS):
            try:
                if not self.messages:
                    publish_due(self.engine, self.send)
                if self.messages:
                    self.one()
                elif self._over():
                    return
                else:
                    self._make_due()
            except Dead:
                self._revive()
            except DATABASE_AWAY:
                if self.in_hand is not None:  # it goes back into its queue
                    self.messages.append(self.in_hand)
            except ConnectionError:
                pass  # from publishing what was due: it is due again
            self.in_hand = None
        raise AssertionError(f"still busy after {MOST_STEPS} steps: {self.messages[:3]}")

    def _over(self) -> bool:
        return bool(self.row("SELECT bool_and(finished_at IS NOT NULL) AS over FROM provisioner.jobs").over)

    def _make_due(self) -> None:
        for table in ("job_agents", "jobs"):
            self.execute(
                f"UPDATE provisioner.{table} SET next_attempt_at = now()"
                " WHERE status IN ('queued', 'running') AND next_attempt_at IS NOT NULL"
            )
        self.execute("UPDATE provisioner.gateway_states SET writer_not_before = NULL, probe_until = NULL")

    def _revive(self) -> None:
        """The worker is dead: its leases run out, and the message that it had is lost, unless its job had no
        row yet: until then the broker keeps it."""
        assert self.failing is not None
        assert self.new_services is not None
        self.failing.revive()
        self.deaths += 1
        self.services = self.new_services()
        if self.in_hand is not None and self.in_hand[2] is not None:
            known = "SELECT count(*) AS jobs FROM provisioner.jobs WHERE id = CAST(:id AS uuid)"
            if not self.row(known, id=self.in_hand[2]).jobs:
                self.messages.append(self.in_hand)
        for table in ("job_agents", "jobs"):
            self.execute(
                f"UPDATE provisioner.{table} SET lease_until = now() - interval '1 s'"
                " WHERE lease_until IS NOT NULL"
            )
            self.execute(
                f"UPDATE provisioner.{table} SET next_attempt_at = now()"
                " WHERE finished_at IS NULL AND next_attempt_at IS NOT NULL"
            )
        self.execute(
            "UPDATE provisioner.gateway_states"
            " SET writer_until = now() - interval '1 s', writer_queued_at = NULL"
        )


class Scenes:
    """Opens scenes on one database, one after another."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine = engine
        self._folder = folder
        self._device_key = DeviceKey.generate()
        self._number = 0

    @contextmanager
    def open(self, release: str) -> Iterator[BrokenScene]:
        """A scene with an empty database and a gateway of its own."""
        with self._engine.begin() as connection:
            connection.exec_driver_sql(EMPTY_ALL_TABLES)
        self._number += 1
        with ExitStack() as stack:
            simulator = stack.enter_context(
                Simulator(
                    release,
                    token="gateway-token",
                    state_dir=self._folder / f"gateway-{self._number}",
                    reply="OK",
                    config=main_with_block(release),
                )
            )

            def new_services() -> Services:
                pool = ClientPool(self._device_key)
                stack.callback(pool.close_all)
                return Services(SETTINGS, self._engine, pool, lambda *_: None)

            made = make_scene(simulator, self._engine, new_services())
            scene = BrokenScene(made.simulator, made.engine, made.fleet, made.services)
            scene.new_services = new_services
            yield scene


def gateways_of(scene: Scene) -> dict[UUID, Simulator]:
    """The scene's one gateway, as the oracle takes them."""
    return {scene.fleet.gateway_id: scene.simulator}
