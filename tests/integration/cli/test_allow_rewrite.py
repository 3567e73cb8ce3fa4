"""``provisioner gateway allow-rewrite`` and what doctor says before it, on a simulated gateway."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.fleet import make_fleet
from tests.integration.cli.conftest import Provisioner
from worker.lab.simulator import Simulator

TOKEN = "the-gateways-own-token"
ROOT = {
    "agents": {"$include": "./agents.json5"},
    "models": {"providers": {"shop": {"baseUrl": "${OWNERS_URL}", "apiKey": "owners-own-key"}}},
}


@pytest.fixture
def gateway(engine: Engine, tmp_path: Path) -> object:
    state = tmp_path / "gateway"
    state.mkdir()
    (state / "agents.json5").write_text(json.dumps({"list": [{"id": "main"}, {"id": "ops-bot"}]}))
    variables = {"OWNERS_URL": "http://127.0.0.1:9"}
    with Simulator(
        "2026.2.12", token=TOKEN, state_dir=state, config=ROOT, environment=variables
    ) as simulator:
        make_fleet(engine, url=simulator.url, token=TOKEN, workspace_root="~/.openclaw")
        yield simulator


def test_what_is_shown_is_allowed_until_it_is_revoked(provisioner: Provisioner, gateway: Simulator) -> None:
    before = gateway.config_path.read_bytes()
    [found] = provisioner.json("doctor", "--all")
    said = {one["check"]: one["says"] for one in found["findings"]}
    assert found["agents"] == 2
    assert "agents from ./agents.json5" in said["rewrites"]
    assert "${OWNERS_URL} at models.providers.shop.baseUrl" in said["rewrites"]
    assert "`provisioner gateway allow-rewrite workshop`" in said["rewrites"]
    shown = provisioner.run("gateway", "allow-rewrite", "workshop", "--yes")
    assert shown.exit_code == 0
    for part in ("agents from ./agents.json5", "${OWNERS_URL} at models", "models.providers.shop.apiKey"):
        assert part in shown.stdout
    assert "owners-own-key" not in shown.output
    again = provisioner.json("gateway", "allow-rewrite", "workshop")
    assert again["allowed"] == []
    assert {one["allowed_before"] for one in again["rewrites"]} == {True}
    found = provisioner.json("doctor", "workshop")
    assert "which is allowed here" in {one["check"]: one["says"] for one in found["findings"]}["rewrites"]
    assert provisioner.json("gateway", "allow-rewrite", "workshop", "--revoke")["revoked"] == 3
    assert len(provisioner.json("gateway", "allow-rewrite", "workshop")["allowed"]) == 3
    assert gateway.config_path.read_bytes() == before


def test_doctor_looks_at_one_gateway_or_at_all(provisioner: Provisioner, gateway: Simulator) -> None:
    assert "give --all" in provisioner.refused("doctor")
    assert "give --all" in provisioner.refused("doctor", "workshop", "--all")
    gateway.config_path.write_text("{ this is no config")
    [found] = provisioner.json("doctor", "--all", code=1)
    faults = [one["says"] for one in found["findings"] if one["status"] == "fault"]
    assert len(faults) == 1
    assert "openclaw.json is invalid" in faults[0]
