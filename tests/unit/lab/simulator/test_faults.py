"""Each scheduled fault, seen by a client."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.conformance.peer import Answer, Device, Peer, meet, meet_when_up
from worker.lab.simulator import Fault, Simulator, Timings
from worker.lab.simulator.faults import (
    Delay,
    Drop,
    Endless,
    FakeReply,
    Flood,
    GarbageChallenge,
    Hold,
    Late,
    NoChallenge,
    Oversized,
    Refuse,
    RefuseConnections,
    RefuseUpgrade,
    Restart,
    Silence,
    Stray,
    Twice,
    Wrong,
    WrongShape,
    busy,
    not_found_yet,
    rate_limited,
    restart_after_burst,
)

SOON_S = 30.0
QUIET_S = 0.3


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[Simulator]:
    timings = Timings(tick_s=0.1)
    with Simulator(
        "2026.9.6", token=secrets.token_urlsafe(24), state_dir=tmp_path, timings=timings
    ) as simulator:
        yield simulator


@pytest.fixture
def peer(simulator: Simulator) -> Iterator[Peer]:
    with meet(simulator.url, simulator.token, device=Device()) as peer:
        peer.ask("agents.create", {"name": "one", "workspace": "/srv/one"})
        yield peer


def write(name: str = "USER.md", content: str = "Ours.", agent: str = "one") -> tuple[str, dict[str, Any]]:
    return "agents.files.set", {"agentId": agent, "name": name, "content": content}


def written(simulator: Simulator, name: str = "USER.md") -> bool:
    return (simulator.workspace("one") / name).read_text(encoding="utf-8") == "Ours."


def close_code(peer: Peer) -> int | None:
    close = peer.closed(SOON_S)
    assert close is not None, "still open"
    return close.code


def test_a_refusal_is_worded_as_scheduled_and_nothing_is_carried_out(
    simulator: Simulator, peer: Peer
) -> None:
    kind = Refuse("not now", "UNAVAILABLE", True, 1500, {"why": "a test"})
    scheduled = simulator.faults.schedule(Fault(kind, "agents.files.set"))
    assert peer.call(*write()).error == {
        "code": "UNAVAILABLE",
        "message": "not now",
        "retryable": True,
        "retryAfterMs": 1500,
        "details": {"why": "a test"},
    }
    assert not written(simulator)
    assert peer.call(*write()).ok
    assert scheduled.happened == 1
    assert scheduled.spent


def test_a_fault_strikes_the_nth_that_fits_and_as_often_as_scheduled(
    simulator: Simulator, peer: Peer
) -> None:
    fault = Fault(Refuse("no"), "agents.files.set", agent="one", file="SOUL.md", nth=2, times=2)
    scheduled = simulator.faults.schedule(fault)
    assert peer.call(*write("USER.md")).ok
    assert [peer.call(*write("SOUL.md")).ok for _ in range(4)] == [True, False, False, True]
    assert scheduled.happened == 2


def test_a_fault_finds_the_agent_of_a_session_key(simulator: Simulator, peer: Peer) -> None:
    simulator.faults.schedule(Fault(Refuse("no"), agent="one"))
    assert peer.call("sessions.patch", {"key": "agent:two:main"}).ok
    assert not peer.call("sessions.patch", {"key": "agent:one:main"}).ok


def test_faults_without_a_method_leave_the_handshake_alone(simulator: Simulator) -> None:
    simulator.faults.schedule(Fault(Refuse("no")))
    with meet(simulator.url, simulator.token) as peer:
        assert peer.hello.ok
        assert not peer.call("health").ok


def test_two_faults_that_fit_strike_one_after_the_other(simulator: Simulator, peer: Peer) -> None:
    scheduled = [simulator.faults.schedule(Fault(Refuse(text), "health")) for text in ("first", "second")]
    assert [peer.call("health").message for _ in range(3)] == ["first", "second", ""]
    assert [fault.happened for fault in scheduled] == [1, 1]


def test_a_scheduled_fault_tells_that_it_did_not_happen(simulator: Simulator, peer: Peer) -> None:
    scheduled = simulator.faults.schedule(Fault(Refuse("no"), "config.patch"))
    assert peer.call("health").ok
    assert not scheduled.wait(0)
    assert simulator.faults.outstanding == [scheduled]


@pytest.mark.parametrize("carried_out", [False, True])
def test_a_drop_ends_the_connection_without_a_close_frame(
    simulator: Simulator, peer: Peer, carried_out: bool
) -> None:
    simulator.faults.schedule(Fault(Drop(carried_out), "agents.files.set"))
    peer.send(*write())
    assert close_code(peer) is None
    assert written(simulator) is carried_out
    assert simulator.calls[-1].fault == "Drop"
    assert simulator.calls[-1].ok is carried_out


@pytest.mark.parametrize("carried_out", [False, True])
def test_a_restart_stands_in_place_of_the_answer(simulator: Simulator, peer: Peer, carried_out: bool) -> None:
    simulator.faults.schedule(Fault(Restart(carried_out), "agents.files.set"))
    peer.send(*write())
    assert close_code(peer) == 1012
    assert written(simulator) is carried_out
    with meet_when_up(simulator.url, simulator.token, within_s=SOON_S):
        assert simulator.restarts == 1


def test_a_restart_may_come_some_time_after_the_answer(simulator: Simulator, peer: Peer) -> None:
    simulator.faults.schedule(restart_after_burst(creates=2, delay_s=0.2))
    asked = time.monotonic()
    for name in ("two", "three"):
        peer.ask("agents.create", {"name": name, "workspace": f"/srv/{name}"})
    assert close_code(peer) == 1012
    assert time.monotonic() - asked > 0.2


def test_a_restart_may_take_its_time(simulator: Simulator, peer: Peer) -> None:
    simulator.faults.schedule(Fault(Restart(down_s=0.5), "health"))
    peer.send("health")
    assert close_code(peer) == 1012
    closed = time.monotonic()
    with meet_when_up(simulator.url, simulator.token, within_s=SOON_S):
        assert time.monotonic() - closed > 0.4


@pytest.mark.parametrize("carried_out", [False, True])
def test_a_delay_is_before_or_after_the_work(simulator: Simulator, peer: Peer, carried_out: bool) -> None:
    simulator.faults.schedule(Fault(Delay(0.6, carried_out), "agents.files.set"))
    began = time.monotonic()
    request = peer.send(*write())
    assert peer.call("health").ok
    assert written(simulator) is carried_out
    assert peer.answer(request).ok
    assert time.monotonic() - began >= 0.6
    assert written(simulator)


@pytest.mark.parametrize("carried_out", [False, True])
def test_a_hold_lasts_until_it_is_released(simulator: Simulator, peer: Peer, carried_out: bool) -> None:
    scheduled = simulator.faults.schedule(Fault(Hold(carried_out), "agents.files.set"))
    request = peer.send(*write())
    assert scheduled.wait(SOON_S)
    assert peer.call("health").ok
    assert written(simulator) is carried_out
    scheduled.release()
    assert peer.answer(request).ok
    assert written(simulator)


def test_clearing_releases_what_is_held(simulator: Simulator, peer: Peer) -> None:
    scheduled = simulator.faults.schedule(Fault(Hold(), "agents.files.set"))
    request = peer.send(*write())
    assert scheduled.wait(SOON_S)
    simulator.faults.clear()
    assert peer.answer(request).ok


def test_a_held_request_does_not_keep_it_from_stopping(simulator: Simulator, peer: Peer) -> None:
    scheduled = simulator.faults.schedule(Fault(Hold(), "agents.files.set"))
    peer.send(*write())
    assert scheduled.wait(SOON_S)
    simulator.stop()
    assert close_code(peer) == 1012
    assert not written(simulator)
    scheduled.release()


def test_answers_out_of_order(simulator: Simulator, peer: Peer) -> None:
    simulator.faults.schedule(Fault(Late(behind=2), "agents.files.set"))
    requests = [peer.send(*write()), peer.send("health"), peer.send("config.get")]
    frames = [peer_frame(peer) for _ in range(3)]
    assert [frame["id"] for frame in frames] == [requests[1], requests[2], requests[0]]
    assert frames[2]["ok"] is True


def test_answers_that_come_twice_or_that_nobody_asked_for(simulator: Simulator, peer: Peer) -> None:
    simulator.faults.schedule(Fault(Twice(), "agents.files.set"))
    simulator.faults.schedule(Fault(Stray(answers=2), "health"))
    request = peer.send(*write())
    assert [peer_frame(peer)["id"] for _ in range(2)] == [request, request]
    assert sum(call.method == "agents.files.set" for call in simulator.calls) == 1
    request = peer.send("health")
    assert [peer_frame(peer)["id"] for _ in range(3)] == ["nobody-0", "nobody-1", request]


def test_a_flood_of_events_comes_before_the_answer(simulator: Simulator, peer: Peer) -> None:
    simulator.faults.schedule(Fault(Flood(events=300, size=10), "health"))
    request = peer.send("health")
    assert peer.answer(request).ok
    assert sum(event["event"] == "chat" for event in peer.events) == 300


def test_an_answer_that_is_larger_than_any_frame(simulator: Simulator, peer: Peer) -> None:
    simulator.faults.schedule(Fault(Oversized(megabytes=51), "agents.files.set"))
    peer.send(*write())
    assert len(peer._socket.recv(SOON_S)) > 51 * 2**20
    assert written(simulator)


def test_a_list_without_an_end(simulator: Simulator, peer: Peer) -> None:
    simulator.faults.schedule(Fault(Endless(), times=None))
    for offset in (0, 3, 1000):
        page = peer.ask("agents.workspace.list", {"agentId": "one", "offset": offset})
        assert page["totalEntries"] > offset + len(page["entries"])
        jobs = peer.ask("cron.list", {"offset": offset})
        assert jobs["hasMore"] is True
        assert jobs["nextOffset"] == offset + len(jobs["jobs"])
    assert peer.call("health").ok


def peer_frame(peer: Peer) -> dict[str, Any]:
    """The next answer as it came."""
    while True:
        frame: dict[str, Any] = json.loads(peer._socket.recv(SOON_S))
        if frame["type"] == "res":
            return frame


@pytest.mark.parametrize(
    ("shape", "payload"), [("text", "unexpected"), ("list", []), ("number", 7), ("empty", {})]
)
def test_a_payload_of_a_wrong_type(
    simulator: Simulator, peer: Peer, shape: WrongShape, payload: object
) -> None:
    simulator.faults.schedule(Fault(Wrong(shape), "agents.files.set"))
    peer.send(*write())
    frame = peer_frame(peer)
    assert frame["ok"] is True
    assert frame["payload"] == payload
    assert written(simulator)


def test_an_answer_without_a_payload(simulator: Simulator, peer: Peer) -> None:
    simulator.faults.schedule(Fault(Wrong("absent"), "health"))
    peer.send("health")
    assert "payload" not in peer_frame(peer)


def test_an_answer_that_is_no_frame(simulator: Simulator, peer: Peer) -> None:
    simulator.faults.schedule(Fault(Wrong("not JSON"), "health"))
    simulator.faults.schedule(Fault(Wrong("frame is a list"), "health"))
    peer.send("health")
    with pytest.raises(json.JSONDecodeError):
        peer_frame(peer)
    peer.send("health")
    with pytest.raises(TypeError):
        peer_frame(peer)


@pytest.mark.parametrize("carried_out", [False, True])
def test_silence_is_no_answer_no_tick_and_no_close(
    simulator: Simulator, peer: Peer, carried_out: bool
) -> None:
    assert peer.event("tick", SOON_S)
    simulator.faults.schedule(Fault(Silence(carried_out), "agents.files.set"))
    peer.send(*write())
    peer.send("health")
    ticks = len(peer.events)
    assert peer.closed(within_s=QUIET_S) is None
    assert len(peer.events) <= ticks + 1, "one may have been under way"
    assert not peer._answers
    assert written(simulator) is carried_out


@pytest.mark.parametrize("release", ["2026.2.12", "2026.3.13", "2026.9.6"])
def test_a_lie_is_shaped_like_the_truth(release: str, tmp_path: Path) -> None:
    with (
        Simulator(release, token="secret", state_dir=tmp_path) as simulator,
        meet(simulator.url, "secret", device=Device()) as peer,
    ):
        peer.ask("agents.create", {"name": "one", "workspace": "/srv/one"})
        for method, params in (
            ("agents.create", {"name": "two", "workspace": "/srv/two"}),
            write(),
            ("sessions.patch", {"key": "agent:one:main", "label": "Bob"}),
            ("chat.send", {"sessionKey": "agent:one:main", "message": "Hi.", "idempotencyKey": "wake"}),
        ):
            simulator.faults.schedule(Fault(FakeReply(), method))
            fake, truth = peer.ask(method, params), peer.ask(method, params)
            assert fake.keys() >= {"ok", "agentId", "key", "file", "runId"} & truth.keys()
            if "file" in truth:
                assert fake["file"].keys() == truth["file"].keys()
                assert fake["file"]["size"] == truth["file"]["size"]


def test_a_lie_carries_nothing_out(simulator: Simulator, peer: Peer) -> None:
    simulator.faults.schedule(Fault(FakeReply(), "agents.files.set"))
    simulator.faults.schedule(Fault(FakeReply(), "agents.create"))
    simulator.faults.schedule(Fault(FakeReply(), "config.patch"))
    assert peer.call(*write()).ok
    assert peer.call("agents.create", {"name": "two", "workspace": "/srv/two"}).ok
    base = peer.ask("config.get")["hash"]
    patch = {"raw": json.dumps({"messages": {"ackReactionScope": "all"}}), "baseHash": base}
    assert peer.ask("config.patch", patch)["hash"] == base
    assert not written(simulator)
    assert "two" not in simulator.agents()
    assert peer.ask("config.get")["hash"] == base
    simulator.faults.schedule(Fault(FakeReply({"own": "words"}), "agents.files.set"))
    assert peer.ask(*write()) == {"own": "words"}


def test_a_patch_that_is_a_lie_restarts_the_older_releases_all_the_same(tmp_path: Path) -> None:
    with (
        Simulator("2026.2.12", token="secret", state_dir=tmp_path) as simulator,
        meet(simulator.url, "secret") as peer,
    ):
        simulator.faults.schedule(Fault(FakeReply(), "config.patch"))
        base = peer.ask("config.get")["hash"]
        patch = {"raw": json.dumps({"messages": {"ackReactionScope": "direct"}}), "baseHash": base}
        assert peer.ask("config.patch", patch)["restart"]["ok"] is True
        assert close_code(peer) == 1012
        stored = json.loads(simulator.config_path.read_text(encoding="utf-8"))
        assert stored["messages"]["ackReactionScope"] != "direct"


def test_what_real_gateways_say_comes_ready_made(simulator: Simulator, peer: Peer) -> None:
    def error_of(fault: Fault, answer: Any) -> dict[str, Any]:
        simulator.faults.schedule(fault)
        given: Answer = answer()
        return given.error

    busy_now = error_of(busy("health"), lambda: peer.call("health"))
    assert busy_now["code"] == "UNAVAILABLE"
    assert busy_now["retryable"] is True
    limited = error_of(rate_limited(after_s=40), lambda: peer.call("config.patch", {"raw": "{}"}))
    assert (limited["retryAfterMs"], limited["details"]["method"]) == (40_000, "config.patch")
    lagging = error_of(not_found_yet("one"), lambda: peer.call(*write()))
    assert lagging["message"] == 'agent "one" not found'


def test_a_refused_connect_is_closed(simulator: Simulator) -> None:
    simulator.faults.schedule(Fault(Refuse("later"), "connect"))
    with meet(simulator.url, simulator.token) as peer:
        assert peer.hello.message == "later"
        assert close_code(peer) == 1013
    with meet(simulator.url, simulator.token) as peer:
        assert peer.hello.ok


def test_an_upgrade_is_refused_with_a_status(simulator: Simulator) -> None:
    scheduled = simulator.faults.schedule(Fault(RefuseUpgrade(503)))
    with pytest.raises(InvalidStatus, match="503"), meet(simulator.url, simulator.token):
        pass
    assert scheduled.happened == 1
    with meet(simulator.url, simulator.token) as peer:
        assert peer.hello.ok


def test_no_challenge_and_a_challenge_of_garbage(simulator: Simulator) -> None:
    simulator.faults.schedule(Fault(NoChallenge()))
    simulator.faults.schedule(Fault(GarbageChallenge("{]")))
    with connect(simulator.url, proxy=None) as socket, pytest.raises(TimeoutError):
        socket.recv(QUIET_S)
    with connect(simulator.url, proxy=None) as socket:
        assert socket.recv(SOON_S) == "{]"


def test_connections_are_refused_for_a_while_and_open_ones_stay(simulator: Simulator, peer: Peer) -> None:
    simulator.faults.schedule(Fault(RefuseConnections(0.6), "health"))
    began = time.monotonic()
    assert peer.call("health").ok
    with pytest.raises(ConnectionRefusedError), meet(simulator.url, simulator.token):
        pass
    assert peer.call("health").ok
    with meet_when_up(simulator.url, simulator.token, within_s=SOON_S):
        assert time.monotonic() - began >= 0.6


def test_connections_can_be_refused_at_once(simulator: Simulator) -> None:
    simulator.refuse_connections(0.6)
    with pytest.raises(ConnectionRefusedError), meet(simulator.url, simulator.token):
        pass
    with meet_when_up(simulator.url, simulator.token, within_s=SOON_S):
        pass


def test_the_newest_release_answers_503_while_it_closes(tmp_path: Path) -> None:
    timings = Timings(closing_s=1.0)
    with Simulator("2026.9.6", token="secret", state_dir=tmp_path, timings=timings) as simulator:
        with meet(simulator.url, "secret") as peer:
            simulator.faults.schedule(Fault(Restart(), "health"))
            peer.send("health")
            assert close_code(peer) == 1012
        with pytest.raises(InvalidStatus, match="503"), meet(simulator.url, "secret"):
            pass
        with meet_when_up(simulator.url, "secret", within_s=SOON_S):
            pass


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"nth": 0}, "count from 1"),
        ({"times": 0}, "count from 1"),
        ({"kind": NoChallenge(), "method": "connect"}, "names no method"),
    ],
)
def test_a_fault_that_could_never_happen_is_refused(fault: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Fault(**{"kind": Drop(), **fault})


def test_a_dropped_connection_is_really_gone(simulator: Simulator, peer: Peer) -> None:
    simulator.faults.schedule(Fault(Drop(), "health"))
    peer.send("health")
    assert close_code(peer) is None
    with pytest.raises(ConnectionClosed):
        peer.send("health")
