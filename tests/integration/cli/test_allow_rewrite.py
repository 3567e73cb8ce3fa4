"""``provisioner gateway allow-rewrite`` and what doctor says before it, on a simulated gateway."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.fleet import make_fleet
from tests.integration.cli.conftest import Provisioner
from tests.owners_files import save
from worker.lab.simulator import Simulator

TOKEN = "the-gateways-own-token"
SHOP = {"baseUrl": "${OWNERS_URL}", "apiKey": "owners-own-key", "name": "$${TEXT}"}
ROOT = {
    "agents": {"$include": "./agents.json5"},
    "models": {"providers": {"shop": SHOP}},
}


@contextmanager
def running(
    engine: Engine, folder: Path, release: str, root: dict[str, Any], **files: Any
) -> Iterator[Simulator]:
    """A gateway with the agents main and ops-bot in a file of their own, and a row for it."""
    folder.mkdir()
    for name, content in {"agents": {"list": [{"id": "main"}, {"id": "ops-bot"}]}, **files}.items():
        save(folder, f"{name}.json5", content)
    variables = {"OWNERS_URL": "http://127.0.0.1:9"}
    with Simulator(release, token=TOKEN, state_dir=folder, config=root, environment=variables) as simulator:
        make_fleet(engine, url=simulator.url, token=TOKEN, workspace_root="~/.openclaw")
        yield simulator


@pytest.fixture
def gateway(engine: Engine, tmp_path: Path) -> Iterator[Simulator]:
    with running(engine, tmp_path / "gateway", "2026.2.12", ROOT) as simulator:
        yield simulator


def test_what_is_shown_is_allowed_until_it_is_revoked(provisioner: Provisioner, gateway: Simulator) -> None:
    before = gateway.config_path.read_bytes()
    [found] = provisioner.json("doctor", "--all")
    said = {one["check"]: one["says"] for one in found["findings"]}
    assert found["agents"] == 2
    assert "agents from ./agents.json5" in said["rewrites"]
    assert "${OWNERS_URL} at models.providers.shop.baseUrl" in said["rewrites"]
    assert (
        "undoes escapes, which turns them into variables ($${TEXT} at models.providers.shop.name)"
        in (said["rewrites"])
    )
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
    assert provisioner.json("gateway", "allow-rewrite", "workshop", "--revoke")["revoked"] == 4
    assert len(provisioner.json("gateway", "allow-rewrite", "workshop")["allowed"]) == 4
    assert gateway.config_path.read_bytes() == before


def test_on_a_release_that_merges_lists_the_included_agents_are_counted_and_a_secret_is_named(
    provisioner: Provisioner, engine: Engine, tmp_path: Path
) -> None:
    models = {"providers": {"shop": {"apiKey": SHOP["apiKey"]}}}
    root = {"agents": ROOT["agents"], "models": {"$include": "./models.json5"}}
    with running(engine, tmp_path / "gateway", "2026.3.13", root, models=models) as gateway:
        save(gateway.state_dir, "openclaw.json", f"// the owner's words\n{gateway.config_path.read_text()}")
        found = provisioner.json("doctor", "workshop")
        shown = provisioner.run("doctor", "workshop")
    assert found["agents"] == 2
    assert found["writes_refused"] is True
    refused, comments = [one["says"] for one in found["findings"] if one["check"] == "rewrites"]
    assert "agents from ./agents.json5, models from ./models.json5" in refused
    assert "copies secrets out of included files into openclaw.json (models.providers.shop.apiKey)" in refused
    assert "; drops its comments;" in refused
    assert "openclaw.json has comments" in comments
    assert SHOP["apiKey"] not in shown.output + str(found)


def test_on_the_newest_release_doctor_says_that_comments_of_the_included_file_go(
    provisioner: Provisioner, engine: Engine, tmp_path: Path
) -> None:
    agents = {"ownership": "explicit", "entries": {"main": {}, "ops-bot": {}}}
    root = {"agents": ROOT["agents"]}
    with running(engine, tmp_path / "gateway", "2026.9.6", root, agents=agents):
        found = provisioner.json("doctor", "workshop")
    said = {one["says"] for one in found["findings"] if one["check"] == "rewrites"}
    assert (found["agents"], len(said)) == (2, 2)
    assert any("those in ./agents.json5, if there are any, go with the first write" in one for one in said)


def test_doctor_looks_at_one_gateway_or_at_all(provisioner: Provisioner, gateway: Simulator) -> None:
    assert "give --all" in provisioner.refused("doctor")
    assert "give --all" in provisioner.refused("doctor", "workshop", "--all")
    gateway.config_path.write_text("{ this is no config")
    [found] = provisioner.json("doctor", "--all", code=1)
    faults = [one["says"] for one in found["findings"] if one["status"] == "fault"]
    assert len(faults) == 1
    assert "openclaw.json is invalid" in faults[0]
