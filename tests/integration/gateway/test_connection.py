"""One connection in use: pipelining, deadlines, malformed frames, and every way that it can end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest

from tests.integration.gateway.conftest import SOON_S, Connect
from tests.integration.gateway.scripted import Peer, Script, echo, hello_payload
from worker.gateway import errors, event_pace
from worker.gateway.address import GatewayAddress
from worker.gateway.connection import MAX_IN_FLIGHT, Call, GatewayConnection, _effect_unknown
from worker.gateway.idle_timeout import call_limits
from worker.gateway.protocol import Event

Request = Mapping[str, Any]


class Holder:
    """Leaves requests unanswered until told otherwise; counts the most that it held at once."""

    def __init__(self) -> None:
        self.held: list[tuple[Peer, Request]] = []
        self.arrived = threading.Semaphore(0)

    def __call__(self, peer: Peer, request: Request) -> None:
        self.held.append((peer, request))
        self.arrived.release()

    def wait_for(self, count: int) -> None:
        for _ in range(count):
            assert self.arrived.acquire(timeout=60)


def in_thread(work: Any) -> tuple[threading.Thread, list[Any]]:
    """Run ``work`` in a thread; its outcome or error is appended to the returned list."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def test_a_call_is_not_sent_after_the_instant_by_which_it_had_to_leave(
    script: Script, connect: Connect
) -> None:
    connection = connect()
    with pytest.raises(errors.CallTimedOut) as refused:
        connection.call("config.patch", deadline_s=5, send_by=time.monotonic())
    assert not refused.value.sent
    connection.call("config.get", deadline_s=5, send_by=time.monotonic() + 5)
    assert [request["method"] for request in script.requests] == ["connect", "config.get"]
    assert connection.in_flight == 0


def test_answers_find_their_callers_whatever_their_order(script: Script, connect: Connect) -> None:
    held: list[Request] = []

    def reversed_in_tens(peer: Peer, request: Request) -> None:
        held.append(request)
        if len(held) == 10:
            for one in reversed(held):
                peer.answer(one, {"n": one["params"]["n"]})
            held.clear()

    script.behave = reversed_in_tens
    outcomes = connect().call_many([Call("m", {"n": n}) for n in range(50)], deadline_s=10)
    assert outcomes == [{"n": n} for n in range(50)]


def test_many_threads_share_one_connection(connect: Connect, script: Script) -> None:
    connection = connect()
    outcomes: dict[int, Any] = {}

    def caller(base: int) -> None:
        for n in range(base, base + 50):
            outcomes[n] = connection.call("m", {"n": n})["params"]["n"]

    threads = [threading.Thread(target=caller, args=(base,)) for base in range(0, 1000, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == {n: n for n in range(1000)}
    assert len(script.upgrades) == 1


def test_at_most_thirty_two_are_in_flight_across_all_threads(script: Script, connect: Connect) -> None:
    holder = script.behave = Holder()
    connection = connect()
    calls = [Call("m", {"n": n}) for n in range(30)]
    runs = [in_thread(lambda: connection.call_many(calls, deadline_s=20)) for _ in range(2)]
    holder.wait_for(MAX_IN_FLIGHT)
    assert not holder.arrived.acquire(timeout=0.2)
    assert connection.in_flight == MAX_IN_FLIGHT
    answered = 0
    while answered < 60:
        peer, request = holder.held[answered]
        peer.answer(request, {})
        answered += 1
        if answered + MAX_IN_FLIGHT <= 60:
            holder.wait_for(1)
            assert len(holder.held) <= answered + MAX_IN_FLIGHT
    for thread, outcome in runs:
        thread.join()
        assert outcome == [[{}] * 30]


def test_one_failure_among_many_hides_no_other_outcome(script: Script, connect: Connect) -> None:
    def odd_ones_fail(peer: Peer, request: Request) -> None:
        if request["params"]["n"] % 2:
            peer.refuse(request, {"code": "INVALID_REQUEST", "message": 'unsupported file "BOOT.md"'})
        else:
            peer.answer(request, {"n": request["params"]["n"]})

    script.behave = odd_ones_fail
    outcomes = connect().call_many([Call("m", {"n": n}) for n in range(4)])
    assert outcomes[0::2] == [{"n": 0}, {"n": 2}]
    assert [type(outcome) for outcome in outcomes[1::2]] == [errors.UnsupportedFile] * 2


def test_unanswered_call_ends_at_its_deadline_and_its_late_answer_harms_nobody(
    script: Script, connect: Connect
) -> None:
    holder = script.behave = Holder()
    connection = connect()
    began = time.monotonic()
    with pytest.raises(errors.CallTimedOut) as caught:
        connection.call("slow", deadline_s=0.2)
    assert 0.2 <= time.monotonic() - began < SOON_S
    assert caught.value.sent is True
    assert "slow" in str(caught.value)
    assert connection.in_flight == 0
    peer, request = holder.held[0]
    script.behave = lambda peer, request: peer.answer(request, {"fresh": True})
    peer.answer(request, {"late": True})
    assert connection.call("next", deadline_s=5) == {"fresh": True}


def test_a_gateway_that_says_nothing_hangs_and_one_that_answers_others_is_only_slow(
    script: Script, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.gateway.connection._HANGS_AFTER_S", 0.3)
    holder = script.behave = Holder()
    connection = connect()
    with pytest.raises(errors.GatewaySilent):
        connection.call("slow", deadline_s=0.5)
    thread, _ = in_thread(lambda: [connection.call("quick", deadline_s=5) for _ in range(10)])

    def answering(peer: Peer, request: Mapping[str, Any]) -> None:
        time.sleep(0.1)
        if request["method"] == "quick":
            peer.answer(request)

    script.behave = answering
    for peer, request in holder.held[1:]:
        peer.answer(request)
    with pytest.raises(errors.CallTimedOut) as caught:
        connection.call("slow", deadline_s=0.5)
    assert not isinstance(caught.value, errors.OUTAGES)
    thread.join()


def test_the_idle_timeout_ends_a_call_to_a_silent_gateway_but_not_to_one_that_talks(
    script: Script, connect: Connect
) -> None:
    holder = script.behave = Holder()
    connection = connect()
    with call_limits(lambda: 0.3), pytest.raises(errors.GatewaySilent):
        connection.call("slow", deadline_s=60)

    def chatty(peer: Peer, request: Mapping[str, Any]) -> None:
        for n in range(10):
            time.sleep(0.1)
            peer.say({"type": "event", "event": "tick", "payload": {"n": n}})
        peer.answer(request, {"n": 10})

    script.behave = chatty
    for peer, request in holder.held[1:]:
        peer.answer(request)
    with call_limits(lambda: 0.5):
        assert connection.call("slow", deadline_s=60) == {"n": 10}


def test_call_that_expires_before_its_turn_is_never_sent(script: Script, connect: Connect) -> None:
    holder = script.behave = Holder()
    connection = connect()
    thread, _ = in_thread(lambda: connection.call_many([Call("first")] * MAX_IN_FLIGHT, deadline_s=20))
    holder.wait_for(MAX_IN_FLIGHT)
    with pytest.raises(errors.CallTimedOut) as caught:
        connection.call("second", deadline_s=0.1)
    assert caught.value.sent is False
    for peer, request in holder.held[:]:
        peer.answer(request)
    thread.join()
    script.behave = lambda peer, request: peer.answer(request)
    connection.call("third")
    assert [request["method"] for request in script.requests].count("second") == 0


def test_a_gateway_too_slow_for_all_calls_gets_fewer_at_once(script: Script, connect: Connect) -> None:
    def slow(peer: Peer, request: Request) -> None:
        time.sleep(0.03)
        peer.answer(request)

    script.behave = slow
    connection = connect()
    outcomes: list[bool] = []

    def caller() -> None:
        for _ in range(8):
            try:
                connection.call("m", deadline_s=0.75)  # thirty-two at once take 0.96 s and more
            except errors.CallTimedOut:
                outcomes.append(False)
            else:
                outcomes.append(True)

    threads = [threading.Thread(target=caller) for _ in range(MAX_IN_FLIGHT)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(outcomes) > len(outcomes) / 4


def test_deadline_of_many_is_for_all_of_them(script: Script, connect: Connect) -> None:
    script.behave = Holder()
    began = time.monotonic()
    outcomes = connect().call_many([Call("m")] * 40, deadline_s=0.3)
    assert time.monotonic() - began < SOON_S
    assert [type(outcome) for outcome in outcomes] == [errors.CallTimedOut] * 40
    sent = [outcome.sent for outcome in outcomes if isinstance(outcome, errors.CallTimedOut)]
    assert sent == [True] * MAX_IN_FLIGHT + [False] * (40 - MAX_IN_FLIGHT)


def test_strange_frames_are_skipped_and_wrong_answers_fail_their_call_only(
    script: Script, connect: Connect
) -> None:
    def strange(peer: Peer, request: Request) -> None:
        peer.say("not json")
        peer.say("[" * 50_000)
        strange_ones: tuple[Any, ...] = (
            [],
            7,
            {"type": "res"},
            {"type": "res", "id": "nobody", "ok": True},
            {"event": 1},
        )
        for message in strange_ones:
            peer.say(message)
        peer.websocket.send(b"\xff\x00 bytes")
        if request["method"] == "wrong":
            peer.say({"type": "res", "id": request["id"], "ok": "maybe", "payload": 3})
        else:
            peer.answer(request, {"fine": True})
            peer.answer(request, {"twice": True})

    script.behave = strange
    connection = connect()
    outcomes = connection.call_many([Call("right"), Call("wrong"), Call("right")], deadline_s=5)
    assert outcomes[0] == outcomes[2] == {"fine": True}
    assert type(outcomes[1]) is errors.BadAnswer
    assert connection.closed is None


def test_invalid_utf8_ends_the_connection_and_no_caller_hangs(script: Script, connect: Connect) -> None:
    def garbage(peer: Peer, request: Request) -> None:
        peer.websocket.send(b"\xff\xfe", text=True)

    script.behave = garbage
    connection = connect()
    with pytest.raises(errors.ConnectionLost, match="1007"):
        connection.call("m", deadline_s=5)
    assert connection.wait_closed(5) is not None


def test_frames_of_many_megabytes_pass_both_ways(connect: Connect) -> None:
    content = "é" * (12 * 1024 * 1024)
    answer = connect().call("set", {"content": content}, deadline_s=60)
    assert answer["params"]["content"] == content


def test_frame_above_the_gateways_limit_fails_that_call_alone_and_is_not_sent(
    script: Script, connect: Connect
) -> None:
    script.hello = hello_payload(policy={"maxPayload": 1000, "tickIntervalMs": 30000})
    connection = connect()
    outcomes = connection.call_many([Call("small"), Call("big", {"content": "x" * 1000}), Call("small")])
    assert type(outcomes[1]) is errors.PermanentGatewayError
    assert "big is 10" in str(outcomes[1])
    assert [type(outcomes[0]), type(outcomes[2])] == [dict, dict]
    assert [request["method"] for request in script.requests] == ["connect", "small", "small"]


def test_subscriber_sees_events_until_it_leaves_and_its_fault_harms_nobody(
    script: Script, connect: Connect
) -> None:
    def chat(peer: Peer, request: Request) -> None:
        peer.say({"type": "event", "event": "chat", "payload": {"state": "final"}})
        peer.answer(request)

    script.behave = chat
    connection = connect()
    seen: list[Event] = []

    def faulty(event: Event) -> None:
        raise ValueError("a bug")

    connection.subscribe(faulty)
    unsubscribe = connection.subscribe(seen.append)
    connection.call("chat.send")
    assert seen == [Event("chat", {"state": "final"})]
    unsubscribe()
    connection.call("chat.send")
    assert len(seen) == 1


def test_subscriber_that_calls_the_gateway_is_told_instead_of_hanging(
    script: Script, connect: Connect
) -> None:
    def chat(peer: Peer, request: Request) -> None:
        peer.say({"type": "event", "event": "chat", "payload": {}})
        peer.answer(request)

    script.behave = chat
    connection = connect()
    told: list[Exception] = []

    def calls_back(event: Event) -> None:
        try:
            connection.call("more")
        except RuntimeError as error:
            told.append(error)

    connection.subscribe(calls_back)
    connection.call("first", deadline_s=5)
    assert len(told) == 1


@pytest.mark.parametrize(("expected_ms", "restarts", "seconds"), [(1500, True, 1.5), (None, False, None)])
def test_announcement_tells_a_restart_from_a_stop(
    script: Script, connect: Connect, expected_ms: int | None, restarts: bool, seconds: float | None
) -> None:
    def restart(peer: Peer, request: Request) -> None:
        peer.announce_shutdown(expected_ms)
        peer.websocket.close(1012, "service restart")

    script.behave = restart
    connection = connect()
    with pytest.raises(errors.ConnectionLost) as caught:
        connection.call("config.patch")
    assert caught.value.retry_after_s == seconds
    assert "unknown" in str(caught.value)
    close = connection.wait_closed(5)
    assert close is not None
    assert (close.code, close.reason) == (1012, "service restart")
    assert (close.shutdown_announced, close.restart_announced) == (True, restarts)
    assert close.restart_expected_s == seconds
    with pytest.raises(errors.GatewayRestarting):
        connection.call("health")


def test_nothing_is_sent_after_the_announcement(script: Script, connect: Connect) -> None:
    def announce(peer: Peer, request: Request) -> None:
        peer.announce_shutdown(1500)
        peer.answer(request)

    script.behave = announce
    connection = connect()
    connection.call("first")
    with pytest.raises(errors.GatewayRestarting) as caught:
        connection.call("second")
    assert caught.value.retry_after_s == 1.5
    assert [request["method"] for request in script.requests] == ["connect", "first"]


def test_connection_cut_without_a_close_frame_fails_what_is_in_flight(
    script: Script, connect: Connect
) -> None:
    holder = script.behave = Holder()
    connection = connect()
    thread, outcome = in_thread(lambda: connection.call_many([Call("m")] * 3, deadline_s=20))
    holder.wait_for(3)
    holder.held[0][0].websocket.close_socket()
    thread.join(5)
    assert [type(one) for one in outcome[0]] == [errors.ConnectionLost] * 3
    close = connection.wait_closed(5)
    assert close is not None
    assert close.code is None
    assert not close.by_us
    with pytest.raises(errors.GatewayUnreachable, match="was not sent"):
        connection.call("m")


def test_two_and_a_half_ticks_of_silence_end_the_connection(script: Script, connect: Connect) -> None:
    script.behave = Holder()
    script.hello = hello_payload(policy={"maxPayload": 1000, "tickIntervalMs": 200})
    connection = connect()
    with pytest.raises(errors.ConnectionLost, match="fell silent"):
        connection.call("m", deadline_s=20)


def test_ticks_keep_a_quiet_connection_alive(script: Script, connect: Connect) -> None:
    script.hello = hello_payload(policy={"maxPayload": 1000, "tickIntervalMs": 600})
    connection = connect()
    for _ in range(12):
        script.peers[0].say({"type": "event", "event": "tick", "payload": {}})
        assert connection.wait_closed(0.2) is None
    assert connection.call("m")["method"] == "m"


def test_gateway_that_stops_reading_does_not_hold_a_caller_past_its_deadline(
    script: Script, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.gateway.connection.MAX_IN_FLIGHT", 32)
    release = threading.Event()

    def stop_reading(peer: Peer, request: Request) -> None:
        # The server's own buffers fill up while this handler does not take the next frame.
        release.wait(60)

    script.behave = stop_reading
    connection = connect()
    small, big = Call("m", {}), Call("m", {"content": "x" * 8_000_000})
    began = time.monotonic()
    try:
        # The server's queue holds 16 frames; once it is full, the socket's buffers fill up.
        outcomes = connection.call_many([small] * 20 + [big] * 4, deadline_s=1.5)
    finally:
        release.set()
    assert time.monotonic() - began < SOON_S
    assert all(isinstance(outcome, errors.TransientGatewayError) for outcome in outcomes)
    assert connection.wait_closed(5) is not None


def test_close_fails_what_is_in_flight_and_may_be_repeated(script: Script, connect: Connect) -> None:
    holder = script.behave = Holder()
    connection = connect()
    thread, outcome = in_thread(lambda: connection.call("m", deadline_s=20))
    holder.wait_for(1)
    connection.close()
    connection.close()
    thread.join(5)
    assert type(outcome[0]) is errors.ConnectionLost
    assert connection.closed is not None
    assert connection.closed.by_us


def test_open_connection_does_not_keep_a_process_alive(gateway: GatewayAddress) -> None:
    code = (
        "import sys; from worker.gateway.connection import *; from worker.gateway.device import DeviceKey;"
        " c = GatewayConnection.open(GatewayAddress(sys.argv[1], token='x'), DeviceKey.generate());"
        " print(c.call('health')['method'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, gateway.url], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "health", "")


def test_opening_and_closing_many_times_leaks_no_file_descriptor(
    connect: Connect, gateway: GatewayAddress, device: Any
) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    connect().call("health")
    before = open_files()
    for _ in range(20):
        with GatewayConnection.open(gateway, device, deadline_s=5) as connection:
            connection.call("health")
    until = time.monotonic() + 5
    while open_files() > before + 2 and time.monotonic() < until:
        threading.Event().wait(0.02)
    assert open_files() <= before + 2


def test_an_unanswered_call_is_in_doubt_only_if_it_changes_something() -> None:
    assert _effect_unknown("config.patch") == ": whether it was carried out is unknown"
    assert {_effect_unknown(read) for read in ("config.get", "agents.workspace.list", "chat.history")} == {""}


def test_a_flood_of_events_is_read_with_pauses_and_the_answer_behind_it_arrives(
    script: Script, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    count = event_pace.EventPace.pause_s

    def watched(pace: event_pace.EventPace, now: float) -> float:
        pauses.append(count(pace, now))
        return 0.0

    def flood(peer: Peer, request: Mapping[str, Any]) -> None:
        for _ in range(30):
            peer.say({"type": "event", "event": "chat", "payload": {"text": "x"}})
        echo(peer, request)

    monkeypatch.setattr(event_pace, "BURST", 10.0)
    monkeypatch.setattr(event_pace, "EVENTS_A_SECOND", 0.01)
    monkeypatch.setattr(event_pace.EventPace, "pause_s", watched)
    script.behave = flood
    assert connect().call("health")["method"] == "health"
    assert [pause > 0 for pause in pauses] == [False] * 10 + [True] * 20
