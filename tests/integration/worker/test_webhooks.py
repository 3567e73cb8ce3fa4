"""A worker process tells webhooks of the ends of its jobs, as docs/enqueue.md says; no job waits for that."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.certificates import self_signed
from tests.integration.agents.fleet import insert_job
from tests.integration.worker.test_enqueue_docs import DOCS
from tests.integration.worker.workshop import Place, Workshop
from tests.webhook_receiver import WAIT_S, Receiver
from worker.webhooks.registry import add_webhook
from worker.webhooks.signatures import secret_of, shown_secret

KEY = "the-key-of-all-webhooks-in-these-tests"
VERIFY = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)[-1]


@dataclass
class House:
    """A worker that has WEBHOOK_KEY, and a place for it to work on."""

    workshop: Workshop
    place: Place
    open_receiver: Callable[[], Receiver]

    def add(self, name: str, receiver: Receiver) -> UUID:
        with self.workshop.engine.begin() as connection:
            return add_webhook(connection, self.place.fleet.organization_id, name, receiver.url())

    def delivery(self, job_id: UUID) -> str | None:
        with self.workshop.engine.connect() as connection:
            statement = text("SELECT status FROM provisioner.webhook_deliveries WHERE job_id = :id")
            return connection.execute(statement, {"id": job_id}).scalar_one_or_none()


@pytest.fixture(scope="module")
def house(open_workshop: Callable[[], Workshop], tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder: Path = tmp_path_factory.mktemp("certificate")
    tls, workshop = self_signed(folder), open_workshop()
    workshop.start_worker(
        WEBHOOK_KEY=KEY,
        WEBHOOK_ALLOWED_NETWORKS="127.0.0.0/8",
        SSL_CERT_FILE=str(folder / "gateway.pem"),
    )
    with ExitStack() as stack:
        yield House(
            workshop, workshop.place("2026.9.6", agents=4), lambda: stack.enter_context(Receiver(tls))
        )


def test_whoever_asked_by_row_or_message_is_told_and_verifies_it(house: House) -> None:
    receiver = house.open_receiver()
    webhook = house.add("ci", receiver)
    by_row, by_message = house.place.fleet.agents[:2]
    jobs = {
        insert_job(house.workshop.engine, by_row, webhook="ci"),
        house.workshop.send(by_message, webhook="ci"),
    }
    received = [receiver.take() for _ in jobs]
    assert {UUID(one.message["data"]["id"]) for one in received} == jobs
    for one in received:
        assert one.message["data"]["status"] == "succeeded"
        assert house.workshop.job(UUID(one.headers["webhook-id"])).status == "succeeded"
        assert verified(one.headers, one.body, secret_of(KEY, webhook)) == "accepted"
        assert verified(one.headers, one.body + b" ", secret_of(KEY, webhook)) == "refused"
        old = {**one.headers, "webhook-timestamp": "1700000000"}
        assert verified(old, one.body, secret_of(KEY, webhook)) == "refused"
    assert KEY not in house.workshop.logs()


def verified(headers: Any, body: bytes, secret: bytes) -> str:
    """What a receiver by the book, with nothing of ours on its path, makes of the message."""
    given = f"headers, body, secret = {dict(headers)!r}, {body!r}, {shown_secret(secret)!r}"
    ran = subprocess.run(
        [sys.executable, "-I", "-c", f"{given}\n{VERIFY}\nprint('accepted' if accepted else 'refused')"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_a_lead_and_the_job_that_provisions_it_are_both_told(house: House) -> None:
    receiver = house.open_receiver()
    house.add("leads", receiver)
    lead = house.workshop.ask("ensure_board_lead", board_id=house.place.fleet.board_id, webhook="leads")
    told = {received.headers["webhook-id"]: received for received in (receiver.take(), receiver.take())}
    first = told.pop(str(lead)).message["data"]
    assert (first["kind"], first["status"]) == ("ensure_board_lead", "succeeded")
    ((_, second),) = told.items()
    assert second.message["data"]["kind"] == "provision_agent"
    assert second.message["data"]["parent_job_id"] == str(lead)


def test_no_job_and_no_other_webhook_waits_for_one_that_hangs(house: House) -> None:
    hangs, other = house.open_receiver(), house.open_receiver()
    let_go = threading.Event()

    def hang(_: BaseHTTPRequestHandler) -> None:
        let_go.wait(WAIT_S)

    hangs.before_answer = hang
    house.add("hangs", hangs)
    house.add("other", other)
    first, second = house.place.fleet.agents[2:]
    stuck = house.workshop.send(first, webhook="hangs")
    assert hangs.take().headers["webhook-id"] == str(stuck)
    told = house.workshop.send(second, webhook="other")
    assert other.take().headers["webhook-id"] == str(told)
    assert house.workshop.job(stuck).status == house.workshop.job(told).status == "succeeded"
    assert house.delivery(stuck) == "pending"
    let_go.set()


def test_a_worker_without_the_key_does_the_job_and_leaves_the_message_to_others(
    open_workshop: Callable[[], Workshop], house: House
) -> None:
    receiver = house.open_receiver()
    workshop = open_workshop()
    worker = workshop.start_worker()
    other = House(workshop, workshop.place("2026.9.6"), house.open_receiver)
    other.add("ci", receiver)
    job_id = workshop.send(other.place.fleet.agent_id, webhook="ci")
    assert workshop.ended(job_id).status == "succeeded"
    assert other.delivery(job_id) == "pending"
    worker.stop()
    assert receiver.connections == 0


def test_the_secret_is_given_as_the_standard_says() -> None:
    shown = shown_secret(secret_of(KEY, UUID(int=1)))
    assert shown.startswith("whsec_")
    assert len(base64.b64decode(shown.removeprefix("whsec_"))) == 32
