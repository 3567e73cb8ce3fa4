"""doctor, against simulated gateways and what is none."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from tests.integration.cli.conftest import Provisioner
from worker.cli.doctor.fleet import forget_refusal, read_gateway
from worker.gateway.address import GatewayAddress
from worker.lab.servers.ports import free_port
from worker.lab.simulator import Simulator
from worker.roster.circuit_breaker import fingerprint

TOKEN = "right-t0ken"


def add(provisioner: Provisioner, url: str, token: str = TOKEN) -> None:
    provisioner.json("gateway", "add", "g", "--url", url, "--token-file", "-", stdin=token)


@pytest.fixture
def web_server() -> Iterator[str]:
    """Something that answers, and is no gateway."""
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"ws://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("release", "dialect", "protocol"), [("2026.2.12", "agents.list", 3), ("2026.9.6", "agents.entries", 4)]
)
def test_a_fit_gateway_says_what_it_is(
    provisioner: Provisioner, tmp_path: Path, release: str, dialect: str, protocol: int
) -> None:
    with Simulator(release, token=TOKEN, state_dir=tmp_path / "state") as simulator:
        add(provisioner, simulator.url)
        found = provisioner.json("doctor", "g")
        shown = provisioner.run("doctor", "g")
    assert (found["ok"], found["dialect"], found["protocol"]) == (True, dialect, protocol)
    assert "operator.admin" in found["scopes"]
    assert len(found["device_id"]) == 64
    assert shown.exit_code == 0
    assert found["device_id"] in shown.stdout
    assert TOKEN not in shown.output
    assert all(len(line) <= 80 for line in shown.stdout.splitlines())


def test_a_wrong_token_is_tried_once_and_not_shown(provisioner: Provisioner, tmp_path: Path) -> None:
    with Simulator("2026.9.6", token=TOKEN, state_dir=tmp_path / "state") as simulator:
        add(provisioner, simulator.url, "wr0ng")
        result = provisioner.run("doctor", "g")
        assert [call.method for call in simulator.calls] == ["connect"]
    assert result.exit_code == 1
    assert "set gateways.token of its row" in " ".join(result.stdout.split())
    assert "wr0ng" not in result.output


def test_a_device_that_waits_for_pairing_is_told_how_to_be_approved(
    provisioner: Provisioner, tmp_path: Path
) -> None:
    with Simulator("2026.9.6", token=TOKEN, state_dir=tmp_path / "state", remote=True) as simulator:
        add(provisioner, simulator.url)
        found = provisioner.json("doctor", "g", code=1)
        assert "openclaw devices approve" in found["findings"][-1]["says"]
        simulator.approve_devices()
        assert provisioner.json("doctor", "g")["ok"] is True


def test_a_dead_port_and_a_web_server_are_told_apart(provisioner: Provisioner, web_server: str) -> None:
    add(provisioner, f"ws://127.0.0.1:{free_port()}")
    provisioner.json("gateway", "add", "web", "--url", web_server, "--token-file", "-", stdin="t")
    dead = provisioner.json("doctor", "g", code=1)["findings"][-1]
    web = provisioner.json("doctor", "web", code=1)["findings"][-1]
    assert (dead["status"], "cannot be reached" in dead["says"]) == ("fault", True)
    assert (web["status"], "WebSocket" in web["says"]) == ("fault", True)


def test_a_server_that_is_silent_is_not_waited_for_without_end(
    provisioner: Provisioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.cli.doctor.examination.CONNECT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        add(provisioner, f"ws://127.0.0.1:{silent.getsockname()[1]}")
        assert provisioner.json("doctor", "g", code=1)["ok"] is False


def test_an_unusable_url_and_device_key_are_findings(
    provisioner: Provisioner, engine: Engine, tmp_path: Path
) -> None:
    add(provisioner, "ws://127.0.0.1:9")
    (tmp_path / "device.pem").write_text("not a key")
    (tmp_path / "device.pem").chmod(0o600)
    assert provisioner.json("doctor", "g", code=1)["findings"][-1]["check"] == "device"
    with engine.begin() as connection:
        connection.execute(text("UPDATE gateways SET url = 'http://h:1/?token=s3cret'"))
    result = provisioner.run("doctor", "g")
    assert (result.exit_code, "ws://h:1" in result.stdout) == (1, True)
    assert "s3cret" not in result.output


def test_doctor_names_a_template_that_is_not_utf8(provisioner: Provisioner, tmp_path: Path) -> None:
    (tmp_path / "own" / "shared").mkdir(parents=True)
    (tmp_path / "own" / "shared" / "SOUL.md.j2").write_bytes(b"Be calm.\nBe caf\xe9.\n")
    provisioner.env["TEMPLATES_DIR"] = str(tmp_path / "own")
    said = "TEMPLATES_DIR/shared/SOUL.md.j2, line 2: it is not UTF-8 text: save it as UTF-8"
    assert said in provisioner.refused("doctor", "--all")


def test_a_token_that_works_again_is_given_back_to_the_workers(
    provisioner: Provisioner, engine: Engine, tmp_path: Path
) -> None:
    with Simulator("2026.9.6", token=TOKEN, state_dir=tmp_path / "state") as simulator:
        add(provisioner, simulator.url)
        noted = text(
            "INSERT INTO provisioner.gateway_states (gateway_id, refused_token_fingerprint)"
            " SELECT id, :fingerprint FROM gateways"
        )
        with engine.begin() as connection:
            connection.execute(noted, {"fingerprint": fingerprint(GatewayAddress(simulator.url, TOKEN))})
        found = provisioner.json("doctor", "g")
    assert "had noted this token as refused" in found["findings"][-1]["says"]
    with engine.connect() as connection:
        left = connection.execute(text("SELECT refused_token_fingerprint FROM provisioner.gateway_states"))
        assert left.scalar_one() is None


def test_that_another_token_was_refused_is_forgotten_without_a_word(
    provisioner: Provisioner, engine: Engine, tmp_path: Path
) -> None:
    with Simulator("2026.9.6", token=TOKEN, state_dir=tmp_path / "state") as simulator:
        add(provisioner, simulator.url)
        with engine.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO provisioner.gateway_states (gateway_id, refused_token_fingerprint)"
                    " SELECT id, 'f' FROM gateways"
                )
            )
        found = provisioner.json("doctor", "g")
    assert "refused" not in json.dumps(found["findings"])
    assert provisioner.json("gateway", "list")[0]["state"] == "up"


def test_that_is_so_too_where_the_gateways_certificate_is_not_verified(
    provisioner: Provisioner, engine: Engine
) -> None:
    add(provisioner, "wss://127.0.0.1:9")
    with engine.begin() as connection:
        key = connection.execute(text("SELECT id FROM gateways")).scalar_one()
        row = replace(read_gateway(connection, key), allow_insecure_tls=True)
        connection.execute(
            text(
                "INSERT INTO provisioner.gateway_states (gateway_id, refused_token_fingerprint)"
                " VALUES (:key, :fingerprint)"
            ),
            {"key": key, "fingerprint": fingerprint(row.address)},
        )
        assert forget_refusal(connection, row)
        assert not forget_refusal(connection, replace(row, allow_insecure_tls=False))
