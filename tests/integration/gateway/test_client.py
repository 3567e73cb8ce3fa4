"""The long-lived client: it opens one connection for all threads, reconnects, and may leave a full pool."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.integration.gateway.scripted import TOKEN, Peer, Script, hello_payload, scripted_gateway
from worker.gateway import errors, handshake
from worker.gateway.address import GatewayAddress
from worker.gateway.client import Call, ClientPool, GatewayClient
from worker.gateway.device import DeviceKey
from worker.gateway.protocol import Event
from worker.jobs.retry_policy import inline_retrying


@pytest.fixture
def client(gateway: GatewayAddress, device: DeviceKey) -> Iterator[GatewayClient]:
    client = GatewayClient(gateway, device)
    yield client
    client.close()


def all_at_once(count: int, work: Any) -> list[Any]:
    """Run ``work`` in ``count`` threads at once; returns what each got, with errors as values."""
    outcomes: list[Any] = []
    start = threading.Barrier(count)

    def run() -> None:
        start.wait(5)
        try:
            outcomes.append(work())
        except errors.GatewayError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_nothing_is_opened_before_the_first_use(client: GatewayClient, script: Script) -> None:
    assert script.upgrades == []
    assert client.generation == 0
    assert client.call("health")["method"] == "health"
    assert client.hello().server_version == "scripted"
    assert len(script.upgrades) == 1
    assert client.generation == 1


def test_many_threads_at_once_open_one_connection(client: GatewayClient, script: Script) -> None:
    outcomes = all_at_once(20, lambda: client.call("health")["method"])
    assert outcomes == ["health"] * 20
    assert len(script.upgrades) == 1


def test_wrong_token_is_tried_once_for_all_who_wait(client: GatewayClient, script: Script) -> None:
    def refuse(peer: Peer, request: Mapping[str, Any]) -> None:
        while client.users < 10:
            time.sleep(0.01)
        # The last thread is counted just before it begins to wait.
        time.sleep(0.2)
        peer.refuse(request, {"code": "INVALID_REQUEST", "message": "unauthorized: token mismatch"})

    script.connect = refuse
    outcomes = all_at_once(10, lambda: client.call("health"))
    assert [type(outcome) for outcome in outcomes] == [errors.WrongToken] * 10
    assert len({id(outcome) for outcome in outcomes}) == 10
    assert len(script.upgrades) == 1


def test_waiting_for_another_threads_attempt_ends_at_ones_own_deadline(
    client: GatewayClient, script: Script
) -> None:
    release = threading.Event()
    arrived = threading.Event()

    def slow(peer: Peer, request: Mapping[str, Any]) -> None:
        arrived.set()
        release.wait(60)
        peer.answer(request, hello_payload())

    script.connect = slow
    opener = threading.Thread(target=client.call, args=("m",))
    opener.start()
    assert arrived.wait(60)
    with pytest.raises(errors.CallTimedOut) as caught:
        client.call("m", deadline_s=0.1)
    assert caught.value.sent is False
    release.set()
    opener.join()
    assert client.generation == 1


def test_a_dead_connection_is_reopened_and_the_generation_changes(
    client: GatewayClient, script: Script
) -> None:
    client.call("health")
    old = client.connection()
    script.peers[0].websocket.close(1012, "service restart")
    assert old.wait_closed(5) is not None
    assert client.call("health")["method"] == "health"
    assert client.generation == 2
    assert client.connection() is not old


def test_an_answer_beyond_all_bounds_fails_its_own_call_alone(
    client: GatewayClient, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With several calls in flight it is unknown whose answer it was, so they are repeated one at a time."""
    monkeypatch.setattr(handshake, "LARGEST_ANSWER", 100_000)

    def behave(peer: Peer, request: Mapping[str, Any]) -> None:
        peer.answer(request, {"content": "x" * (200_000 if request["method"] == "huge" else 10)})

    script.behave = behave
    calls = [Call(method, {}) for method in ("small", "huge", "other")]
    first = client.call_many(calls)
    assert isinstance(first[1], errors.ConnectionLost | errors.BadAnswer)
    small, huge, other = client.call_many(calls)
    assert isinstance(huge, errors.BadAnswer)
    assert "did not answer huge as the protocol requires (with more than" in str(huge)
    assert not isinstance(small, errors.GatewayError)
    assert isinstance(other, errors.GatewayUnreachable)
    assert isinstance(client.call("other"), dict)


def test_call_that_finds_its_connection_dead_goes_over_a_new_one(
    client: GatewayClient, script: Script
) -> None:
    release = threading.Event()

    def wait_for_release(event: Event) -> None:
        release.wait(60)

    client.call("health")
    old = client.connection()
    # Keep the reader from noticing the end, as if the call came right before it does.
    old.subscribe(wait_for_release)
    script.peers[0].say({"type": "event", "event": "tick", "payload": {}})
    script.peers[0].websocket.close_socket()
    assert old._socket.wait_closed(5)
    assert old.closed is None
    try:
        assert client.call("once", deadline_s=5)["method"] == "once"
    finally:
        release.set()
    assert client.generation == 2
    assert [request["method"] for request in script.requests].count("once") == 1


def test_gateway_that_restarts_in_the_middle_is_found_again(device: DeviceKey) -> None:
    first, second = Script(), Script()
    with scripted_gateway(first) as address:
        client = GatewayClient(address, device)
        client.call("health")
        connection = client.connection()
        first.peers[0].announce_shutdown(500)
    assert connection.wait_closed(5) is not None
    with pytest.raises(errors.GatewayUnreachable):
        client.call("health", deadline_s=5)
    port = int(address.url.rpartition(":")[2])
    with scripted_gateway(second, port=port):
        assert inline_retrying(10)(client.call, "health")["method"] == "health"
        client.close()
    assert client.generation == 2


def test_call_many_goes_over_the_same_connection(client: GatewayClient, script: Script) -> None:
    outcomes = client.call_many([Call("a"), Call("b", {"n": 1})])
    assert outcomes == [{"method": "a", "params": {}}, {"method": "b", "params": {"n": 1}}]
    client.call("c")
    assert len(script.upgrades) == 1


def test_closed_client_says_that_the_worker_is_stopping(client: GatewayClient) -> None:
    client.call("health")
    client.close()
    with pytest.raises(errors.GatewayUnreachable, match="stopping"):
        client.call("health")


def test_client_closed_while_it_opens_leaves_no_connection(client: GatewayClient, script: Script) -> None:
    arrived, release = threading.Event(), threading.Event()

    def slow(peer: Peer, request: Mapping[str, Any]) -> None:
        arrived.set()
        release.wait(60)
        peer.answer(request, {"type": "hello-ok", "protocol": 4})

    script.connect = slow
    outcome: list[Any] = []

    def call() -> None:
        with pytest.raises(errors.GatewayUnreachable) as caught:
            client.call("m", deadline_s=5)
        outcome.append(caught.value)

    opener = threading.Thread(target=call)
    opener.start()
    assert arrived.wait(60)
    client.close()
    release.set()
    opener.join()
    assert len(outcome) == 1
    assert client.generation == 0


def test_pool_has_one_client_for_each_url_token_and_tls(gateway: GatewayAddress, device: DeviceKey) -> None:
    pool = ClientPool(device)
    same = GatewayAddress(gateway.url, token=TOKEN)
    assert pool.client(gateway) is pool.client(same)
    others = [
        GatewayAddress(gateway.url, token="a-token-of-another"),
        GatewayAddress(gateway.url),
        GatewayAddress(gateway.url, token=TOKEN, allow_insecure_tls=True),
        GatewayAddress(gateway.url + "/path", token=TOKEN),
    ]
    assert len({id(pool.client(address)) for address in [gateway, *others]}) == 5
    pool.close_all()
    assert len(pool) == 0


def test_a_pool_that_was_closed_opens_nothing_again(gateway: GatewayAddress, device: DeviceKey) -> None:
    pool = ClientPool(device)
    pool.client(gateway).call("health")
    pool.close_all()
    with pytest.raises(errors.GatewayUnreachable, match="this worker is stopping"):
        pool.client(gateway).call("health")


def test_full_pool_disconnects_the_idle_client_unused_for_longest(
    gateway: GatewayAddress, device: DeviceKey
) -> None:
    pool = ClientPool(device, max_clients=2)
    addresses = [GatewayAddress(f"{gateway.url}/{n}", token=TOKEN) for n in range(3)]
    connections = []
    for address in addresses[:2]:
        client = pool.client(address)
        client.call("health")
        connections.append(client.connection())
    first = pool.client(addresses[0])
    pool.client(addresses[2])
    assert len(pool) == 2
    assert pool.client(addresses[0]) is first
    assert connections[0].closed is None
    assert connections[1].wait_closed(5) is not None
    pool.close_all()


def test_full_pool_leaves_a_client_at_work_alone(
    gateway: GatewayAddress, device: DeviceKey, script: Script
) -> None:
    arrived, release = threading.Event(), threading.Event()

    def hold(peer: Peer, request: Mapping[str, Any]) -> None:
        arrived.set()
        release.wait(60)
        peer.answer(request, {"done": True})

    script.behave = hold
    pool = ClientPool(device, max_clients=1)
    busy = pool.client(gateway)
    outcome: list[Any] = []
    worker = threading.Thread(target=lambda: outcome.append(busy.call("m", deadline_s=10)))
    worker.start()
    assert arrived.wait(60)
    pool.client(GatewayAddress(f"{gateway.url}/other", token=TOKEN))
    assert pool.client(gateway) is busy
    release.set()
    worker.join()
    assert outcome == [{"done": True}]
    pool.close_all()
