"""A gateway with everything wrong at once that doctor looks for, and what it must say: the same findings on
simulated and on real releases."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text

from tests.fleet import make_fleet
from tests.integration.cli.conftest import Provisioner

TOKEN = "the-gateways-t0ken"
WRONG_TOKEN = "n0t-the-gateways"
VARIABLES = {"SHOP_URL": "http://127.0.0.1:9/shop", "SHOP_KEY": "the-shops-hidden-key"}
SECRETS = (TOKEN, WRONG_TOKEN, VARIABLES["SHOP_KEY"], "the-shops-own-key")
ORPHAN = f"mc-{UUID(int=0xAA)}"
ORPHANED_LEAD = f"lead-{UUID(int=0xBB)}"


class InconsistentGateway:
    """Rows, in tables that are empty, and a config that do not fit each other. Start a gateway on
    ``config``, then say where it is with ``settle``."""

    def __init__(self, engine: Engine, release: str) -> None:
        self.release = release
        self._engine = engine
        fleet = make_fleet(engine, url="ws://127.0.0.1:9", token=TOKEN, workspace_root="/w")
        fleet.add_agent("Absent")
        gone = fleet.add_agent("Gone")
        slow = fleet.add_agent("Slow", heartbeat_config={"every": "50m"}, soul_template="Calm. " * 4000)
        fleet.add_agent("Bent", soul_template="fine\n{{ one.two }}")
        self._run(
            "INSERT INTO provisioner.agent_credentials (agent_id, gateway_id) VALUES (:agent, :gateway)",
            agent=gone,
            gateway=fleet.gateway_id,
        )
        self.config = _config(release, f"mc-{slow}")

    def settle(self, url: str) -> None:
        """The gateway ``workshop`` is at ``url``, and so is ``strange``, whose row has a wrong token."""
        self._run("UPDATE gateways SET url = :url", url=url)
        self.add_gateway("strange", f"{url}/strange", WRONG_TOKEN)

    def add_gateway(self, name: str, url: str, token: str = TOKEN) -> None:
        """One more gateway of the organization."""
        self._run(
            "INSERT INTO gateways"
            " (id, organization_id, name, url, token, workspace_root, created_at, updated_at)"
            " SELECT gen_random_uuid(), id, :name, :url, :token, '/w', now(), now() FROM organizations",
            name=name,
            url=url,
            token=token,
        )

    def _run(self, statement: str, **values: object) -> None:
        with self._engine.begin() as connection:
            connection.execute(text(statement), values)


def _config(release: str, slow: str) -> dict[str, Any]:
    remote = {
        "baseUrl": "${SHOP_URL}",
        "apiKey": "${SHOP_KEY}",
        "headers": {"x-api-key": "the-shops-own-key"},
    }
    search = {"remote": remote}
    beating = {"heartbeat": {"every": "10m", "target": "none"}}
    entries: dict[str, Any] = {
        "main": {},
        "shop": {
            "name": "Shop",
            **({"memorySearch": search} if release < "2026.8" else {"memory": {"search": search}}),
        },
        slow: {"name": "Slow", "workspace": f"/w/workspace-{slow}", **beating},
        ORPHAN: {"name": "Left behind"},
        ORPHANED_LEAD: {"name": "Leads nobody"},
    }
    agents: dict[str, Any] = {"defaults": {"heartbeat": {"every": "30m"}}}
    if release < "2026.8":
        return {"agents": {**agents, "list": [{"id": key, **entry} for key, entry in entries.items()]}}
    return {"agents": {**agents, "ownership": "explicit", "entries": entries}}


def assert_all_found(provisioner: Provisioner, release: str) -> None:
    """One run of doctor names every fault with its cure, shows no secret, and fits a terminal."""
    provisioner.env["BASE_URL"] = "http://127.0.0.1:9"
    found = provisioner.json("doctor", "workshop", code=1)
    said = {(one["check"], one["status"], tuple(one["about"])): one["says"] for one in found["findings"]}

    def says(check: str, status: str, *about: str) -> str:
        return str(said[check, status, about])

    assert "does not answer" in says("BASE_URL", "warning")
    assert "correct BASE_URL" in says("BASE_URL", "warning")
    assert "`provisioner provision NAME`" in says("roster", "fault", "Gone")
    assert "`provisioner provision NAME`" in says("roster", "warning", "Absent", "Bent")
    assert "`provisioner heartbeats workshop`" in says("roster", "warning", "Slow")
    assert "heartbeat.every" in says("roster", "warning", "Slow")
    assert f"`provisioner delete {ORPHAN[3:]} --gateway workshop`" in says("roster", "warning", ORPHAN)
    assert f"`openclaw agents delete {ORPHANED_LEAD}`" in says("roster", "warning", ORPHANED_LEAD)
    beating = ("main", "shop") if release >= "2026.8" else ("main",)
    assert "into openclaw.json" in says("heartbeats", "warning", *beating)
    assert "line 2" in says("templates", "fault", "Bent")
    assert "agents.soul_template" in says("templates", "fault", "Bent")
    assert "23,999 characters" in says("budget", "warning", "Slow")
    lost = ("AUTONOMY.md", "BOOT.md", "SELF.md", "TASK_SOUL.md")
    assert "not taken at all: AUTONOMY, BOOT, SELF, TASK_SOUL" in says("files", "ok", *lost)
    if release == "2026.2.12":
        assert "agents.list[shop].memorySearch.remote.apiKey" in says("variables", "warning", "${SHOP_URL}")
    assert ("variables" in {check for check, _, _ in said}) is (release == "2026.2.12")
    shown = provisioner.run("doctor", "workshop")
    assert shown.exit_code == 1
    assert all(len(line) <= 80 for line in shown.stdout.splitlines())
    assert " ".join(shown.stdout.split()).endswith("2 faults to correct, " + f"{_warnings(found)} warnings.")
    refused = provisioner.run("doctor", "strange")
    assert refused.exit_code == 1
    assert "set gateways.token of its row" in " ".join(refused.stdout.split())
    assert known(provisioner) == {"workshop": (True, release == "2026.2.12"), "strange": (False, None)}
    everything = shown.output + refused.output + str(found)
    assert not [secret for secret in SECRETS if secret in everything]


def known(provisioner: Provisioner) -> dict[str, tuple[bool, bool | None]]:
    """By gateway, as ``device show`` has it: whether it lets us in, and has our device as paired."""
    document = provisioner.json("device", "show")
    return {one["gateway"]: (one["let_in"], one["paired"]) for one in document["gateways"]}


def _warnings(found: dict[str, Any]) -> int:
    # The first run made the device key, and says so once.
    return sum(one["status"] == "warning" and "made just now" not in one["says"] for one in found["findings"])
