"""A webhook is told of the end of each job that names it, once it accepts the message (decisions.md D17)."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine

from tests.certificates import self_signed
from tests.integration.agents.fleet import execute
from tests.integration.webhooks.conftest import KEY, Desk
from tests.webhook_receiver import WAIT_S, Receiver
from worker.webhooks.deliverer import PAUSE_S, RETRY_AFTER_S
from worker.webhooks.post import post
from worker.webhooks.signatures import secret_of, shown_secret

OTHER_KEY = "another-key-from-which-nothing-is-derived"


def make_due(engine: Engine) -> None:
    """Let the time pass until everything is tried again."""
    execute(engine, "UPDATE provisioner.webhooks SET not_before = now()")
    execute(
        engine, "UPDATE provisioner.webhook_deliveries SET next_attempt_at = now() WHERE status = 'pending'"
    )


def test_it_is_told_once_the_job_has_ended_and_can_verify_who_says_so(desk: Desk, receiver: Receiver) -> None:
    webhook = desk.add("ci", receiver.url("/hook?tenant=7"))
    held = desk.begin(webhook="ci", request_id="sign-up-1")
    desk.send()
    assert receiver.connections == 0, "the job has not ended"
    desk.end(held)
    desk.send()
    received = receiver.take()
    assert received.path == "/hook?tenant=7"
    assert received.headers["content-type"] == "application/json"
    assert received.headers["webhook-id"] == str(held.job_id)
    assert received.is_signed_with(secret_of(KEY, webhook))
    assert not received.is_signed_with(secret_of(OTHER_KEY, webhook))
    assert not received.is_signed_with(secret_of(KEY, UUID(int=0)))
    message = received.message
    assert message["type"] == "job.ended"
    assert message["timestamp"].endswith("+00:00")
    assert message["data"] == {
        "id": str(held.job_id),
        "kind": "provision_agent",
        "status": "succeeded",
        "reason_code": None,
        "request_id": "sign-up-1",
        "parent_job_id": None,
        "organization_id": str(desk.fleet.organization_id),
        "gateway_id": str(desk.fleet.gateway_id),
        "board_id": str(desk.fleet.board_id),
        "agent_id": str(desk.fleet.agent_id),
    }
    row = desk.delivery(held.job_id)
    assert (row.status, row.attempts, row.answer, row.error) == ("delivered", 1, 204, None)
    desk.send()
    assert receiver.connections == 1


def test_all_that_waits_for_a_webhook_is_sent_in_one_go(desk: Desk, receiver: Receiver) -> None:
    desk.add("ci", receiver.url())
    ended = [str(desk.end(desk.begin(agent, webhook="ci"))) for agent in range(3)]
    desk.send()
    assert [receiver.take().message["data"]["id"] for _ in ended] == ended


@pytest.mark.parametrize(
    ("status", "headers", "error"),
    [
        (500, {}, "127.0.0.1 answered 500."),
        (404, {}, "127.0.0.1 answered 404."),
        (302, {"Location": "https://127.0.0.1/elsewhere"}, "answered 302, and redirects are not followed"),
    ],
)
def test_one_that_does_not_accept_it_is_asked_again_later(
    desk: Desk, receiver: Receiver, engine: Engine, status: int, headers: dict[str, str], error: str
) -> None:
    desk.add("ci", receiver.url())
    receiver.status, receiver.headers = status, headers
    job_id = desk.end(desk.begin(webhook="ci"))
    desk.send()
    row = desk.delivery(job_id)
    assert (row.status, row.attempts, row.answer, row.failures) == ("pending", 1, status, 1)
    assert error in row.error
    assert row.last_error == row.error
    assert 0 < row.again_s <= 1.2 * RETRY_AFTER_S[0]
    assert 0 < row.pause_s <= PAUSE_S
    desk.send()
    assert receiver.connections == 1, "it is left alone for a while"
    make_due(engine)
    receiver.status, first = 200, receiver.take()
    desk.send()
    assert receiver.take().headers["webhook-id"] == first.headers["webhook-id"]
    row = desk.delivery(job_id)
    assert (row.status, row.attempts, row.answer, row.error, row.failures) == ("delivered", 2, 200, None, 0)


def test_it_is_given_up_after_the_last_attempt_and_at_once_by_one_that_is_gone(
    desk: Desk, receiver: Receiver, engine: Engine
) -> None:
    desk.add("ci", receiver.url())
    receiver.status = 500
    job_id = desk.end(desk.begin(webhook="ci"))
    for attempt in range(1 + len(RETRY_AFTER_S)):
        assert desk.delivery(job_id).status == "pending", attempt
        make_due(engine)
        desk.send()
    row = desk.delivery(job_id)
    assert (row.status, row.attempts, row.again_s) == ("failed", 8, None)
    assert 100 < row.pause_s <= 64 * PAUSE_S
    receiver.status = 410
    job_id = desk.end(desk.begin(1, webhook="ci"))
    make_due(engine)
    desk.send()
    assert desk.delivery(job_id).status == "failed"


def test_one_that_asks_for_time_gets_it(desk: Desk, receiver: Receiver) -> None:
    desk.add("ci", receiver.url())
    receiver.status, receiver.headers = 429, {"Retry-After": "120"}
    job_id = desk.end(desk.begin(webhook="ci"))
    desk.send()
    assert 100 < desk.delivery(job_id).again_s <= 120


def test_one_that_hangs_holds_up_no_other_and_is_left_in_the_end(
    desk: Desk, open_receiver: Callable[[], Receiver]
) -> None:
    hangs, other = open_receiver(), open_receiver()
    let_go = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        """A byte now and then, so that no single read takes long."""
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 60_000:
            if let_go.wait(0.02):
                return
            handler.wfile.write(bytes([byte]))

    hangs.before_answer = drip
    desk.add("hangs", hangs.url())
    desk.add("other", other.url())
    stuck, told = desk.end(desk.begin(0, webhook="hangs")), desk.end(desk.begin(1, webhook="other"))
    deliverer = desk.deliverer(post=partial(post, timeout_s=2))
    deliverer.send_due()
    assert hangs.take().message["data"]["id"] == str(stuck)
    assert other.take().message["data"]["id"] == str(told)
    assert desk.delivery(stuck).attempts == 0, "it still hangs"
    more = desk.end(desk.begin(2, webhook="other"))
    while other.nothing_more():
        deliverer.send_due()
    assert other.take().message["data"]["id"] == str(more)
    deliverer.stop()
    let_go.set()
    row = desk.delivery(stuck)
    assert (row.status, row.error) == ("pending", "127.0.0.1 did not answer within 2 seconds.")
    assert desk.delivery(told).status == desk.delivery(more).status == "delivered"


def test_a_certificate_that_cannot_be_verified_gets_nothing(
    desk: Desk, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.add("by-name", receiver.url(host="localhost"))
    by_name = desk.end(desk.begin(0, webhook="by-name"))
    desk.send()
    assert "certificate of localhost cannot be verified" in desk.delivery(by_name).error
    monkeypatch.delenv("SSL_CERT_FILE")
    desk.add("unknown", receiver.url())
    unknown = desk.end(desk.begin(1, webhook="unknown"))
    desk.send()
    assert "certificate of 127.0.0.1 cannot be verified" in desk.delivery(unknown).error
    (tmp_path / "expired").mkdir()
    with Receiver(self_signed(tmp_path / "expired", expired=True)) as late:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "expired" / "gateway.pem"))
        desk.add("late", late.url())
        expired = desk.end(desk.begin(2, webhook="late"))
        desk.send()
        assert "certificate has expired" in desk.delivery(expired).error
    assert receiver.nothing_more()


def test_a_private_address_is_not_connected_to(desk: Desk, receiver: Receiver) -> None:
    desk.add("ci", receiver.url())
    job_id = desk.end(desk.begin(webhook="ci"))
    desk.send(allowed=[])
    assert receiver.connections == 0
    assert "The host 127.0.0.1 has only private addresses (127.0.0.1)" in desk.delivery(job_id).error


def test_the_address_that_was_checked_is_the_one_that_is_connected_to(
    desk: Desk, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that gets another address after the check."""
    desk.add("ci", receiver.url(host="hook.example"))
    asked: list[str] = []
    resolver = socket.getaddrinfo

    def rebinding(host: Any, port: Any, *more: Any, **named: Any) -> Any:
        if host != "hook.example":
            return resolver(host, port, *more, **named)
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "127.0.0.2"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    job_id = desk.end(desk.begin(webhook="ci"))
    desk.send()
    assert desk.delivery(job_id).status == "delivered", desk.delivery(job_id).error
    assert asked == ["hook.example"]
    assert receiver.take().headers["host"].startswith("hook.example:")


def test_what_does_not_speak_http_or_is_not_there_is_a_sentence(desk: Desk) -> None:
    with socket.socket() as refuses, socket.socket() as mute:
        for one in (refuses, mute):
            one.bind(("127.0.0.1", 0))
        mute.listen()
        desk.add("refuses", f"https://127.0.0.1:{refuses.getsockname()[1]}/")
        desk.add("mute", f"https://127.0.0.1:{mute.getsockname()[1]}/")
        desk.add("nobody", "https://nobody.invalid/")
        ended = [
            desk.end(desk.begin(n, webhook=name)) for n, name in enumerate(("refuses", "mute", "nobody"))
        ]
        desk.send(post=partial(post, timeout_s=0.3))
    errors = [desk.delivery(job_id).error for job_id in ended]
    assert errors[0] == "127.0.0.1 cannot be reached (Connection refused)."
    assert errors[1] == "127.0.0.1 did not answer within 0.3 seconds."
    assert errors[2].startswith("The host nobody.invalid cannot be resolved (")


def test_two_workers_do_not_send_to_one_webhook_at_once_and_one_that_dies_is_followed(
    desk: Desk, receiver: Receiver, engine: Engine
) -> None:
    desk.add("ci", receiver.url())
    job_id = desk.end(desk.begin(webhook="ci"))
    answers = threading.Event()

    def wait(_: BaseHTTPRequestHandler) -> None:
        assert answers.wait(WAIT_S)

    receiver.before_answer = wait
    first = desk.deliverer()
    first.send_due()
    receiver.take()
    desk.send()
    assert receiver.connections == 1
    execute(engine, "UPDATE provisioner.webhooks SET not_before = now()")  # as if it had died a minute ago
    second = desk.deliverer()
    second.send_due()
    assert receiver.take().headers["webhook-id"] == str(job_id)
    answers.set()
    for one in (first, second):
        one.stop()
    assert desk.delivery(job_id).status == "delivered"


def test_no_table_holds_the_secret_or_the_key(desk: Desk, receiver: Receiver, engine: Engine) -> None:

    webhook = desk.add("ci", receiver.url())
    desk.end(desk.begin(webhook="ci"))
    desk.send()
    shown = shown_secret(secret_of(KEY, webhook)).removeprefix("whsec_")
    with engine.connect() as connection:
        for table in ("webhooks", "webhook_deliveries", "jobs", "job_agents"):
            rows = str(connection.exec_driver_sql(f"SELECT t::text FROM provisioner.{table} t").all())
            assert rows != "[]"
            assert shown not in rows
            assert KEY not in rows
