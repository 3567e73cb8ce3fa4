"""The simulator as a process, a thread and a set of files."""

from __future__ import annotations

import json
import logging
import secrets
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.peer import Answer, Device, Peer, meet
from tests.conformance.steps import eventually
from worker.lab.simulator import RELEASES, Simulator, Timings
from worker.lab.simulator.fault_file import KINDS, faults_in

RELEASE = "2026.9.6"
CONTENT = "A line that only the agent should read."


@pytest.fixture
def token() -> str:
    return secrets.token_urlsafe(24)


@pytest.fixture
def simulator(token: str, tmp_path: Path) -> Simulator:
    return Simulator(RELEASE, token=token, state_dir=tmp_path / "state")


def write_file(peer: Peer, agent: str) -> dict[str, object]:
    peer.ask("agents.create", {"name": agent, "workspace": "/srv/agents/one"})
    params = {"agentId": agent, "name": "AGENTS.md", "content": CONTENT}
    answer = eventually(lambda: known(peer.call("agents.files.set", params)), 5)  # 2026.2.26 knows it later
    file: dict[str, object] = answer.payload["file"]
    return file


def known(answer: Answer) -> Answer | None:
    return answer if answer.ok else None


@pytest.mark.parametrize("release", RELEASES)
def test_it_reads_everything_from_disk_when_it_starts_again(release: str, token: str, tmp_path: Path) -> None:
    first = Simulator(release, token=token, state_dir=tmp_path)
    with first, meet(first.url, token, device=Device()) as peer:
        written = write_file(peer, "one")
    with (
        Simulator(release, token=token, state_dir=tmp_path) as second,
        meet(second.url, token, device=Device()) as peer,
    ):
        assert peer.ask("agents.files.get", {"agentId": "one", "name": "AGENTS.md"})["file"] == written
        assert (second.workspace("one") / "AGENTS.md").read_text(encoding="utf-8") == CONTENT


def test_it_keeps_its_port_over_a_stop(simulator: Simulator) -> None:
    with simulator:
        first = simulator.url
    with simulator, meet(first, simulator.token) as peer:
        assert peer.hello.ok


def test_it_starts_only_once(simulator: Simulator) -> None:
    with simulator, pytest.raises(RuntimeError, match="runs already"):
        simulator.start()


def test_a_taken_port_is_an_error_and_leaves_nothing_behind(token: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        simulator = Simulator(RELEASE, token=token, state_dir=tmp_path, port=taken.getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            simulator.start()
    with simulator, meet(simulator.url, token) as peer:
        assert peer.hello.ok


def test_a_kill_ends_connections_without_a_close_frame(simulator: Simulator) -> None:
    simulator.start()
    with meet(simulator.url, simulator.token) as peer:
        simulator.kill()
        close = peer.closed(within_s=60)
        assert close is not None
        assert close.code is None


def test_a_workspace_outside_the_state_folder_is_kept_inside(simulator: Simulator, tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere"
    with simulator, meet(simulator.url, simulator.token) as peer:
        created = peer.ask("agents.create", {"name": "one", "workspace": str(outside)})
        assert created["workspace"] == str(outside)
        assert simulator.workspace("one").is_relative_to(simulator.state_dir)
        home = peer.ask("agents.create", {"name": "two", "workspace": "~/agents/two"})
        assert home["workspace"] == str(simulator.state_dir / "home" / "agents" / "two")
        assert simulator.workspace("two").is_relative_to(simulator.state_dir)
    assert not outside.exists()


def test_the_journal_tells_calls_writes_and_restarts(token: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    simulator = Simulator("2026.2.12", token=token, state_dir=tmp_path / "state", journal=journal)
    with simulator, meet(simulator.url, token) as peer:
        base = peer.ask("config.get")["hash"]
        refused = peer.call("config.patch", {"raw": "{}", "baseHash": "old"})
        peer.ask("config.patch", {"raw": "{}", "baseHash": base})
        assert peer.closed(within_s=60) is not None
        assert simulator.restarts == 1
    assert simulator.config_writes == 1
    methods = ["connect", "config.get", "config.patch", "config.patch"]
    assert [call.method for call in simulator.calls] == methods
    assert [call.ok for call in simulator.calls] == [True, True, False, True]
    assert simulator.calls[2].message == refused.message
    events = [json.loads(line)["event"] for line in journal.read_text(encoding="utf-8").splitlines()]
    assert sorted(events) == ["call"] * 4 + ["config-write", "restart"]


def test_neither_token_nor_contents_are_told(
    token: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    journal = tmp_path / "journal.jsonl"
    simulator = Simulator(RELEASE, token=token, state_dir=tmp_path / "state", journal=journal)
    with simulator, meet(simulator.url, token, device=Device()) as peer:
        write_file(peer, "one")
        params = {"sessionKey": "agent:one:main", "message": CONTENT, "idempotencyKey": "wake"}
        peer.ask("chat.send", params)
        with meet(simulator.url, "wrong") as refused:
            assert not refused.hello.ok
    ours = [record for record in caplog.records if record.name != "websockets.client"]  # the test's own end
    assert any(record.name == "worker.lab.simulator.socket" for record in ours)
    server_log = "".join(record.getMessage() for record in ours)
    told = [repr(simulator), repr(simulator.calls), journal.read_text(encoding="utf-8"), server_log]
    assert [text for text in told if token in text or CONTENT in text] == []
    assert {"agentId": "one", "name": "AGENTS.md"} in [call.names for call in simulator.calls]


def test_a_configured_model_answers(token: str, tmp_path: Path) -> None:
    simulator = Simulator(RELEASE, token=token, state_dir=tmp_path, reply="At your service.")
    with simulator, meet(simulator.url, token) as peer:
        params = {"sessionKey": "agent:main:main", "message": "Hello.", "idempotencyKey": "wake"}
        assert peer.ask("chat.send", params)["status"] == "started"
        final = peer.event("chat", 5, runId="wake", state="final")
        assert final["message"]["content"] == "At your service."
        history = peer.ask("chat.history", {"sessionKey": "agent:main:main"})["messages"]
        assert [message["content"] for message in history] == ["Hello.", "At your service."]
        assert peer.ask("chat.send", params)["status"] == "ok"


@pytest.mark.parametrize("release", RELEASES)
def test_a_remote_device_waits_for_approval(release: str, token: str, tmp_path: Path) -> None:
    simulator = Simulator(release, token=token, state_dir=tmp_path, remote=True)
    with simulator:
        device = Device()
        with meet(simulator.url, token, device=device) as peer:
            assert peer.hello.error["code"] == "NOT_PAIRED"
            assert peer.hello.message.startswith("pairing required")
            assert peer.hello.error["details"]["requestId"]
            close = peer.closed(within_s=60)
            assert close is not None
            assert close.code == 1008
        with meet(simulator.url, token) as peer:
            assert "missing scope" in peer.call("config.get").message
        simulator.approve_devices()
        with meet(simulator.url, token, device=device) as peer:
            assert peer.call("config.get").ok


def test_a_new_boot_answers_that_it_is_starting(token: str, tmp_path: Path) -> None:
    simulator = Simulator(RELEASE, token=token, state_dir=tmp_path, timings=Timings(starting_s=0.3))
    with simulator:
        with meet(simulator.url, token) as peer:
            assert peer.hello.error == {
                "code": "UNAVAILABLE",
                "message": "gateway starting; retry shortly",
                "retryable": True,
                "retryAfterMs": 500,
                "details": {"reason": "startup-sidecars"},
            }
            close = peer.closed(within_s=60)
            assert close is not None
            assert close.code == 1013

        def is_ready() -> bool:
            with meet(simulator.url, token) as peer:
                return peer.hello.ok

        assert eventually(is_ready, 60)


def test_a_tick_comes_by_itself(token: str, tmp_path: Path) -> None:
    simulator = Simulator(RELEASE, token=token, state_dir=tmp_path, timings=Timings(tick_s=0.05))
    with simulator, meet(simulator.url, token) as peer:
        assert peer.event("tick", 5)["ts"] > 0


def test_the_port_refuses_while_it_restarts(token: str, tmp_path: Path) -> None:
    simulator = Simulator(
        "2026.2.12", token=token, state_dir=tmp_path, timings=Timings(restart_delay_s=0, down_s=1.0)
    )
    with simulator:
        with meet(simulator.url, token) as peer:
            peer.ask("config.patch", {"raw": "{}", "baseHash": peer.ask("config.get")["hash"]})
            assert peer.closed(within_s=60) is not None
        with pytest.raises(ConnectionRefusedError), meet(simulator.url, token):
            pass
        simulator.stop()


def test_variables_are_written_out_by_the_older_release_only(
    token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWNERS_URL", "http://127.0.0.1:9/v1")
    config = {"models": {"providers": {"owners": {"baseUrl": "${OWNERS_URL}", "models": []}}}}
    for release, expected in (("2026.2.12", "http://127.0.0.1:9/v1"), (RELEASE, "${OWNERS_URL}")):
        simulator = Simulator(release, token=token, state_dir=tmp_path / release, config=config)
        with simulator, meet(simulator.url, token) as peer:
            peer.ask("agents.create", {"name": "one", "workspace": "/srv/one"})
        stored = json.loads(simulator.config_path.read_text(encoding="utf-8"))
        assert stored["models"]["providers"]["owners"]["baseUrl"] == expected


def test_as_a_process_it_serves_until_sigterm(token: str, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(token + "\n", encoding="utf-8")
    command = [sys.executable, "-W", "error", "-m", "worker.lab.simulator", "--release", "2026.2.12"]
    command += ["--token-file", str(token_file), "--journal", str(tmp_path / "journal.jsonl")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert token not in line
        with meet(line.split()[-1], token) as peer:
            assert peer.call("health").ok
            process.send_signal(signal.SIGTERM)
            close = peer.closed(within_s=60)
            assert close is not None
            assert close.code == 1012
        assert process.wait(timeout=60) == 0
    calls = (tmp_path / "journal.jsonl").read_text(encoding="utf-8")
    assert '"health"' in calls


def test_as_a_process_it_takes_faults_from_a_file_and_reads_it_again_on_sighup(
    token: str, tmp_path: Path
) -> None:
    token_file, faults, journal = tmp_path / "token", tmp_path / "faults.json", tmp_path / "journal.jsonl"
    token_file.write_text(token, encoding="utf-8")
    faults.write_text('[{"kind": "hold", "method": "health"}]', encoding="utf-8")
    command = [sys.executable, "-W", "error", "-m", "worker.lab.simulator", "--faults", str(faults)]
    command += ["--token-file", str(token_file), "--journal", str(journal)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        with meet(process.stdout.readline().split()[-1], token) as peer:
            held = peer.send("health")
            assert eventually(lambda: '"event": "fault"' in journal.read_text(encoding="utf-8"), 5)
            faults.write_text('[{"kind": "refuse", "message": "no", "times": null}]', encoding="utf-8")
            process.send_signal(signal.SIGHUP)
            assert peer.answer(held).ok
            assert eventually(lambda: peer.call("health").message == "no", 5)
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    told = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    assert [line["kind"] for line in told if line["event"] == "fault"][:2] == ["Hold", "Refuse"]
    met = [line["fault"] for line in told if line["event"] == "call"]
    assert met[:2] == [None, "Hold"]
    assert "Refuse" in met  # a call may come before the file is read again


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting"),
        ("{}", "holds no list"),
        ('[{"kind": "drop"}, {"kind": "dorp"}]', "fault 2: kind must be one of refuse, drop, "),
        ('[{"kind": "delay", "second": 1}]', "fault 1: delay has no second"),
        ('[{"kind": "delay"}]', "fault 1: .*seconds"),
        ('[{"kind": "drop", "nth": 0}]', "count from 1"),
    ],
)
def test_a_faults_file_that_is_not_understood_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "faults.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        faults_in(path)


def test_a_faults_file_can_schedule_every_kind(tmp_path: Path) -> None:
    needed: dict[str, dict[str, object]] = {
        "refuse": {"message": "no"},
        "delay": {"seconds": 1},
        "refuse-connections": {"seconds": 1},
    }
    needed["wrong"] = {"shape": "text"}
    path = tmp_path / "faults.json"
    path.write_text(json.dumps([{"kind": kind, **needed.get(kind, {})} for kind in KINDS]), encoding="utf-8")
    assert [type(fault.kind) for fault in faults_in(path)] == list(KINDS.values())


def test_an_unknown_release_is_refused_by_name(token: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"2026\.1\.1.*2026\.2\.12, 2026\.2\.26, 2026\.3\.13, 2026\.9\.6"):
        Simulator("2026.1.1", token=token, state_dir=tmp_path)


def test_a_stop_in_the_middle_of_a_handshake_does_not_wait(simulator: Simulator) -> None:
    with simulator:
        host, port = simulator.url.removeprefix("ws://").split(":")
        silent = socket.create_connection((host, int(port)))
    silent.close()
