from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, Row

from tests.certificates import self_signed
from tests.integration.agents.fleet import Fleet, one, seed_fleet
from tests.webhook_receiver import Receiver
from worker.jobs.intake import accept_agent_job
from worker.jobs.store.job_agents import Claim, claim, finish
from worker.webhooks.addresses import read_networks
from worker.webhooks.deliverer import Deliverer
from worker.webhooks.registry import add_webhook

KEY = "the-key-of-all-webhooks-in-these-tests"
HERE = read_networks("127.0.0.0/8")


@pytest.fixture
def fleet(engine: Engine) -> Fleet:
    return seed_fleet(engine, agents=3)


@pytest.fixture
def open_receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Receiver]]:
    """Opens receivers whose certificate this process trusts."""
    tls = self_signed(tmp_path, names=["hook.example"])
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "gateway.pem"))
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Receiver(tls))


@pytest.fixture
def receiver(open_receiver: Callable[[], Receiver]) -> Receiver:
    return open_receiver()


class Desk:
    """Adds webhooks, ends jobs and sends what is due, one round at a time."""

    def __init__(self, engine: Engine, fleet: Fleet) -> None:
        self.engine, self.fleet = engine, fleet
        self._open: list[Deliverer] = []

    def add(self, name: str, url: str, organization_id: UUID | None = None) -> UUID:
        with self.engine.begin() as connection:
            return add_webhook(connection, organization_id or self.fleet.organization_id, name, url)

    def begin(self, agent: int = 0, **arguments: Any) -> Claim:
        """A provision that a worker has in hand."""
        agent_id, job_id = self.fleet.agents[agent], uuid4()
        accept_agent_job(
            self.engine, "provision_agent", str(job_id), (), {"agent_id": str(agent_id), **arguments}
        )
        held = claim(self.engine, job_id, agent_id, "provision_agent", lease_s=60)
        assert isinstance(held, Claim)
        return held

    def end(self, held: Claim, status: str = "succeeded") -> UUID:
        with self.engine.begin() as connection:
            finish(connection, held, status, warnings=[])
        return held.job_id

    def deliverer(self, **options: Any) -> Deliverer:
        made = Deliverer(self.engine, **{"keys": [KEY], "allowed": HERE, **options})
        self._open.append(made)
        return made

    def send(self, **options: Any) -> None:
        """One round of a deliverer, to its end."""
        deliverer = self.deliverer(**options)
        deliverer.send_due()
        deliverer.stop()

    def delivery(self, job_id: UUID) -> Row[Any]:
        statement = """
            SELECT d.status, d.attempts, d.answer, d.error,
                extract(epoch FROM d.next_attempt_at - now())::float AS again_s,
                w.failures, w.last_error, extract(epoch FROM w.not_before - now())::float AS pause_s
            FROM provisioner.webhook_deliveries d JOIN provisioner.webhooks w ON w.id = d.webhook_id
            WHERE d.job_id = :id
        """
        return one(self.engine, statement, id=job_id)

    def close(self) -> None:
        for deliverer in self._open:
            deliverer.stop()


@pytest.fixture
def desk(engine: Engine, fleet: Fleet) -> Iterator[Desk]:
    desk = Desk(engine, fleet)
    yield desk
    desk.close()
