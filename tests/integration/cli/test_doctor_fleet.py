"""doctor on a gateway with agents, BASE_URL, and device show."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from tests.integration.cli.conftest import TOKEN, Provisioner
from tests.integration.cli.test_update import id_of
from worker.gateway.address import GatewayAddress
from worker.lab.simulator import Simulator
from worker.roster.circuit_breaker import fingerprint


class Healthz(BaseHTTPRequestHandler):
    """Mission Control's one answer."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def mission_control() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Healthz)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def findings(document: dict[str, Any], check: str) -> list[dict[str, Any]]:
    return [finding for finding in document["findings"] if finding["check"] == check]


def test_a_settled_gateway_agrees_and_doctor_writes_nothing(
    staffed: Provisioner, simulator: Simulator, engine: Engine, mission_control: str
) -> None:
    staffed.json("provision", "Ada", "--no-wake")
    before, calls = simulator.config_path.read_bytes(), len(simulator.calls)
    staffed.env["BASE_URL"] = mission_control
    found = staffed.json("doctor", "gateway of Ada")
    assert [one["check"] for one in found["findings"] if one["status"] != "ok"] == []
    assert "agrees with the rows of 1 agent" in findings(found, "roster")[0]["says"]
    assert findings(found, "BASE_URL")[0]["says"].endswith("/healthz answers 200")
    assert simulator.config_path.read_bytes() == before
    assert {call.method for call in simulator.calls[calls:]} <= {
        "connect",
        "config.get",
        "cron.list",
        "device.pair.list",
    }


def test_an_agent_lost_and_an_agent_left_behind_are_found_with_their_cures(
    staffed: Provisioner, simulator: Simulator, engine: Engine
) -> None:
    staffed.json("provision", "Ada", "--no-wake")
    ada = id_of(staffed, "Ada")
    staffed.json("agent", "add", "Eve", "--board", "Board Ada")
    staffed.json("provision", "Eve", "--no-wake")
    eve = id_of(staffed, "Eve")
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM agents WHERE id = :id"), {"id": ada})
        connection.execute(
            text("UPDATE agents SET soul_template = :template, heartbeat_config = :heartbeat WHERE id = :id"),
            {"template": "a\n{{ b.c }}", "heartbeat": '{"every": "1h"}', "id": eve},
        )
    found = staffed.json("doctor", "gateway of Ada", code=1)
    orphan, differing = sorted(findings(found, "roster"), key=lambda one: one["about"] != [f"mc-{ada}"])
    assert f'provisioner delete {ada} --gateway "gateway of Ada"' in orphan["says"]
    assert "Eve: heartbeat.every" in differing["says"]
    assert "Eve: the SOUL.md override, line 2" in findings(found, "templates")[0]["says"]
    shown = staffed.run("doctor", "gateway of Ada")
    assert "1 fault to correct, 3 warnings." in shown.stdout
    assert all(len(line) <= 80 for line in shown.stdout.splitlines())
    staffed.json("delete", str(ada), "--gateway", "gateway of Ada", "--yes")
    assert f"mc-{ada}" not in simulator.agents()
    assert len(findings(staffed.json("doctor", "gateway of Ada", code=1), "roster")) == 1


def test_mission_control_that_does_not_answer_is_a_warning(
    provisioner: Provisioner, mission_control: str, tmp_path: Path
) -> None:
    with Simulator("2026.2.12", token=TOKEN, state_dir=tmp_path / "state") as simulator:
        provisioner.json("gateway", "add", "g", "--url", simulator.url, "--token-file", "-", stdin=TOKEN)
        (unset,) = findings(provisioner.json("doctor", "g"), "BASE_URL")
        provisioner.env["BASE_URL"] = f"{mission_control}/wrong"
        (wrong,) = findings(provisioner.json("doctor", "g"), "BASE_URL")
        provisioner.env["BASE_URL"] = "http://user:passw0rd@127.0.0.1:9"
        (dead,) = findings(provisioner.json("doctor", "g"), "BASE_URL")
    assert [one["status"] for one in (unset, wrong, dead)] == ["warning"] * 3
    assert "not set here" in unset["says"]
    assert "answers 404" in wrong["says"]
    assert "does not answer" in dead["says"]
    assert "passw0rd" not in dead["says"]


def test_the_device_is_shown_with_the_gateways_that_know_it_and_never_its_private_key(
    provisioner: Provisioner, engine: Engine, tmp_path: Path
) -> None:
    assert "no device key" in provisioner.refused("device", "show")
    with (
        Simulator("2026.2.12", token=TOKEN, state_dir=tmp_path / "near") as near,
        Simulator("2026.9.6", token=TOKEN, state_dir=tmp_path / "far", remote=True) as far,
        Simulator("2026.9.6", token="another", state_dir=tmp_path / "shut") as shut,
    ):
        for name, simulator in (("near", near), ("far", far), ("shut", shut)):
            url = simulator.url
            provisioner.json("gateway", "add", name, "--url", url, "--token-file", "-", stdin=TOKEN)
        provisioner.run("doctor", "near")
        noted = text(
            "INSERT INTO provisioner.gateway_states (gateway_id, refused_token_fingerprint)"
            " SELECT id, :fingerprint FROM gateways WHERE name = 'shut'"
        )
        with engine.begin() as connection:
            connection.execute(noted, {"fingerprint": fingerprint(GatewayAddress(shut.url, TOKEN))})
        found = provisioner.json("device", "show")
        shown = provisioner.run("device", "show")
        assert shut.calls == []
        far.approve_devices()
        after = provisioner.json("device", "show")
        offline = provisioner.json("device", "show", "--offline")
    says = {one["gateway"]: one for one in found["gateways"]}
    assert [says[name]["let_in"] for name in ("near", "far", "shut")] == [True, False, False]
    assert "openclaw devices approve" in says["far"]["says"]
    assert "refused this token before" in says["shut"]["says"]
    assert {one["gateway"]: one["paired"] for one in after["gateways"]}["far"] is True
    assert offline["gateways"] is None
    assert found["device_id"] in shown.stdout
    assert all(len(line) <= 80 for line in shown.stdout.splitlines())
    private = Path(str(provisioner.env["GATEWAY_DEVICE_KEY"])).read_text().splitlines()[1]
    assert private not in shown.output + str(found)
