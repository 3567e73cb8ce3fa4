"""What the gateway's owner wrote, wherever and however: refused before it is lost, and never lost unasked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, Row, text

from tests.integration.agents.fleet import Fleet, seed_fleet
from tests.owners_files import save
from worker.gateway import roster_reading
from worker.gateway.address import GatewayAddress
from worker.gateway.client import GatewayClient
from worker.gateway.device import DeviceKey
from worker.gateway.dialect import Dialect
from worker.gateway.rewrites import removal_rewrites, rewrites_of
from worker.gateway.roster_reading import LiveRoster, read_roster
from worker.lab.simulator import Simulator
from worker.roster.intents import RosterChange, record_intents
from worker.roster.rewrite_permission import allow, allowed, revoke
from worker.roster.writer import write_roster
from worker.runtime.services import Services

TOKEN = "the-gateways-own-token"
VARIABLES = {"OWNERS_URL": "http://127.0.0.1:9/owner", "OWNERS_KEY": "owners-hidden-key"}
OLDEST, MERGING, NEWEST = "2026.2.12", "2026.3.13", "2026.9.6"
MAIN, BOT = {"default": True}, {"name": "Ops"}


def section(release: str, **more: Any) -> dict[str, Any]:
    """The owner's agents, main and ops-bot, as a release has them, and what is in ``more`` besides."""
    if release == NEWEST:
        return {"ownership": "explicit", "entries": {"main": {}, "ops-bot": BOT, **more}}
    entries = {"main": MAIN, "ops-bot": BOT, **more}
    return {"list": [{"id": key, **entry} for key, entry in entries.items()]}


class Place:
    """A gateway with files of its owner's, and a fleet that is to be brought there."""

    def __init__(self, engine: Engine, services: Services, folder: Path, release: str) -> None:
        self.engine, self.services, self.release, self.folder = engine, services, release, folder / "gateway"
        self.simulator: Simulator
        self.fleet: Fleet

    @contextmanager
    def opened(self, root: dict[str, Any], files: dict[str, Any]) -> Iterator[Place]:
        self.folder.mkdir(exist_ok=True)
        for name, content in files.items():
            self.put(name, content)
        with Simulator(
            self.release, token=TOKEN, state_dir=self.folder, config=root, environment=VARIABLES, reply="OK"
        ) as simulator:
            self.simulator = simulator
            self.fleet = seed_fleet(self.engine, agents=2, url=simulator.url, token=TOKEN)
            yield self

    @property
    def path(self) -> Path:
        return self.simulator.config_path

    @property
    def stored(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.path.read_text())
        return found

    def put(self, name: str, content: Any) -> None:
        """The owner saves a file."""
        save(self.folder, name, content)

    def edit(self, **root: Any) -> None:
        self.put("openclaw.json", {**self.stored, **root})

    def ids(self) -> list[str]:
        return [f"mc-{agent}" for agent in self.fleet.agents]

    def write(self, change: str = "reconcile", *agents: UUID, **more: Any) -> list[Row[Any]]:
        """Record an intent for each agent, run the writer, and say how they ended."""
        job = uuid4()
        with self.engine.begin() as connection:
            for agent in agents or self.fleet.agents:
                wanted = RosterChange(agent, f"mc-{agent}", change, **more)
                record_intents(connection, self.fleet.gateway_id, job, wanted)
        write_roster(self.services, self.fleet.gateway_id)
        statement = text("SELECT * FROM provisioner.roster_intents WHERE job_id = :job ORDER BY id")
        with self.engine.connect() as connection:
            return list(connection.execute(statement, {"job": job}))

    def allow(self) -> None:
        live = self.read()
        shown = {*rewrites_of(live, TOKEN), *removal_rewrites(live, live.ours)}
        with self.engine.begin() as connection:
            allow(connection, self.fleet.gateway_id, [*shown])

    def read(self) -> LiveRoster:
        client = GatewayClient(GatewayAddress(self.simulator.url, TOKEN), DeviceKey.generate())
        hello = client.hello()
        dialect = Dialect.from_hello(hello.server_version, hello.methods)
        live = read_roster(
            dialect, lambda: client.call("config.get"), lambda: client.call("agents.list"), lambda _: None
        )
        client.close()
        return live

    def patches(self) -> int:
        return sum(call.method == "config.patch" for call in self.simulator.calls)


Open = Callable[..., Any]


@pytest.fixture
def place(
    engine: Engine, hands: Callable[..., Services], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Open:
    monkeypatch.setattr(roster_reading, "_PAUSE_S", 0.01)

    def opened(release: str, root: dict[str, Any], **files: Any) -> Any:
        services = hands(retry_inline_s=2, retry_timeout_s=60)
        named = {name.replace("_", "."): content for name, content in files.items()}
        return Place(engine, services, tmp_path, release).opened(root, named)

    return opened


@pytest.mark.parametrize("release", [OLDEST, MERGING])
def test_an_include_is_flattened_only_with_leave_and_then_nobody_is_lost(place: Open, release: str) -> None:
    agents = {"$include": "./agents.json5"}
    with place(release, {"agents": agents}, agents_json5=section(release)) as here:
        here.put("openclaw.json", f"// the owner's own words\n{here.path.read_text()}")
        before = here.path.read_bytes()
        first, second = here.write()
        assert first.error == second.error
        assert "; drops its comments." in first.error
        assert {first.reason_code, second.reason_code} == {"rewrite_refused"}
        assert "agents from ./agents.json5" in first.error
        assert "`provisioner gateway allow-rewrite" in first.error
        assert (here.path.read_bytes(), here.patches()) == (before, 0)
        assert not any(row.warning for row in (first, second)), "nothing was written, so nothing changed"
        here.allow()
        assert [row.error for row in here.write()] == [None, None]
        listed = here.stored["agents"]["list"]
        assert listed[:2] == [{"id": "main", **MAIN}, {"id": "ops-bot", **BOT}]
        assert {entry["id"] for entry in listed[2:]} == set(here.ids())


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"models": {"providers": {"shop": {"baseUrl": "${OWNERS_URL}"}}}}, "${OWNERS_URL} at models."),
        ({"models": {"providers": {"shop": {"apiKey": "${OWNERS_KEY}"}}}}, "models.providers.shop.apiKey"),
        ({"models": {"providers": {"shop": {"name": "$${TEXT}"}}}}, "$${TEXT} at models.providers.shop.name"),
        ({"gateway": {"auth": {"mode": "token", "token": "${OWNERS_KEY}"}}}, "gateway.auth.token"),
    ],
    ids=["visible", "hidden", "escape", "own token"],
)
def test_the_oldest_release_replaces_variables_only_with_leave(
    place: Open, config: dict[str, Any], named: str
) -> None:
    with place(OLDEST, config) as here:
        if "gateway" in config:
            here.edit(**config)  # it accepts what it began with
        before = here.path.read_bytes()
        assert {named in row.error for row in here.write()} == {True}
        assert (here.path.read_bytes(), here.patches()) == (before, 0)
        assert VARIABLES["OWNERS_KEY"] not in here.write()[0].error
        here.allow()
        assert [row.error for row in here.write()] == [None, None]
        assert "${TEXT}" not in str(config) or "$${TEXT}" in here.path.read_text(), "it would start no more"


def test_an_escape_in_an_included_file_is_named_before_it_is_undone(place: Open) -> None:
    """2026.2.12 writes the file's content into openclaw.json without the escape, and then may not start."""
    models = {"providers": {"shop": {"name": "$${TEXT}"}}}
    with place(OLDEST, {"models": {"$include": "./models.json5"}}, models_json5=models) as here:
        assert "($${TEXT} at models.providers.shop.name)" in here.write()[0].error
        here.allow()
        assert [row.error for row in here.write()] == [None, None]
        assert [row.error for row in here.write("remove")] == [None, None], "allowed with the include"
        assert here.stored["models"] == models


def test_an_ordinary_gateway_is_asked_nothing(place: Open) -> None:
    with place(OLDEST, {"agents": section(OLDEST)}) as here:
        for row in here.write():
            assert row.error is None
            assert "rewrite" not in (row.warning or "")


def test_what_is_new_asks_again_and_leave_is_taken_back(place: Open) -> None:
    one = {"providers": {"one": {"baseUrl": "${OWNERS_URL}"}}}
    with place(OLDEST, {"models": one}) as here:
        here.allow()
        assert [row.error for row in here.write()] == [None, None]
        here.edit(models={"providers": {"two": {"baseUrl": "${OWNERS_URL}"}}})
        agent = here.fleet.agents[0]
        statement = text("UPDATE agents SET name = 'Other' WHERE id = :id")
        with here.engine.begin() as connection:
            connection.execute(statement, {"id": agent})
        [held] = here.write("reconcile", agent)
        assert held.error is None, "its files and tokens go on meanwhile"
        assert "models.providers.two.baseUrl" in held.warning
        assert "Other" not in here.path.read_text()
        [kept] = here.write("remove", agent)
        assert "models.providers.two.baseUrl" in kept.error
        assert kept.reason_code == "rewrite_refused"
        with here.engine.begin() as connection:
            assert allowed(connection, here.fleet.gateway_id)
            assert revoke(connection, here.fleet.gateway_id) == 1
            assert not allowed(connection, here.fleet.gateway_id)


def test_a_secret_in_an_included_file_is_named_and_never_shown(place: Open) -> None:
    models = {"providers": {"shop": {"apiKey": "owners-own-key"}}}
    root = {"agents": section(MERGING), "models": {"$include": "./models.json5"}}
    with place(MERGING, root, models_json5=models) as here:
        error = here.write()[0].error
        assert "models.providers.shop.apiKey" in error
        assert "owners-own-key" not in error
        assert "owners-own-key" not in here.path.read_text()


def test_the_newest_release_is_sent_one_patch_for_each_owner(place: Open) -> None:
    agents = {"$include": "./agents.json5"}
    with place(NEWEST, {"agents": agents}, agents_json5=section(NEWEST)) as here:
        first, second = here.write()
        assert (first.error, second.error) == (None, None)
        assert "the comments of a file when it writes it: those in ./agents.json5, if" in first.warning
        assert here.stored["agents"] == agents
        assert "heartbeatVisibility" in here.stored["channels"]["defaults"]
        written = json.loads((here.folder / "agents.json5").read_text())["entries"]
        assert set(written) == {"main", "ops-bot", *here.ids()}
        assert here.patches() == 2
        for kept in here.write("remove"):
            assert "does not do agents.delete" in kept.error
            assert kept.reason_code == "gateway_refused"
            assert kept.error.endswith("move agents back into openclaw.json there")
        assert set(here.ids()) <= here.read().present


def test_agents_whose_owner_moved_them_into_an_include_are_still_there(place: Open) -> None:
    with place(NEWEST, {"agents": section(NEWEST)}) as here:
        here.write()
        moved = here.stored["agents"]
        here.put("agents.json5", moved)
        here.edit(agents={"$include": "./agents.json5"})
        assert [(row.error, row.present_before) for row in here.write(only_present=True)] == [
            (None, True)
        ] * 2
        [kept] = here.write("remove", here.fleet.agents[0])
        assert kept.error.endswith("move agents back into openclaw.json there"), "it removes none from a file"
        here.edit(agents=moved)
        [removed] = here.write("remove", here.fleet.agents[0])
        assert (removed.error, removed.present_before) == (None, True)
        assert here.ids()[0] not in here.simulator.agents()


@pytest.mark.parametrize(
    "agents",
    [{"$include": ["./agents.json5"]}, {"$include": "./agents.json5", "defaults": {}}],
    ids=["array", "sibling"],
)
def test_what_the_newest_release_does_not_write_is_said_at_once(place: Open, agents: dict[str, Any]) -> None:
    with place(NEWEST, {"agents": agents}, agents_json5=section(NEWEST)) as here:
        errors = {(row.error, row.reason_code) for row in here.write()}
        [(error, code)] = errors
        assert "move agents back into openclaw.json" in error
        assert code == "gateway_refused"
        assert here.patches() == 1


def test_entries_alone_are_written_where_the_channels_cannot_be(place: Open) -> None:
    root = {"agents": section(NEWEST), "channels": {"$include": ["./channels.json5"]}}
    with place(NEWEST, root, channels_json5={"defaults": {}}) as here:
        first, second = here.write()
        assert (first.error, second.error) == (None, None)
        assert "visibility of the channels was left as it is" in (first.warning or second.warning)
        assert set(here.ids()) <= set(here.simulator.agents())
        assert here.patches() == 1


def test_channels_in_a_file_of_their_own_are_written_there(place: Open) -> None:
    root = {"agents": section(NEWEST), "channels": {"$include": "./channels.json5"}}
    with place(NEWEST, root, channels_json5={"defaults": {}}) as here:
        first, second = here.write()
        assert (first.error, second.error) == (None, None)
        assert here.stored["channels"] == {"$include": "./channels.json5"}
        included = json.loads((here.path.parent / "channels.json5").read_text())
        assert included["defaults"]["heartbeatVisibility"]["showOk"] is False
        assert set(here.ids()) <= set(here.simulator.agents())


@pytest.mark.parametrize("release", [OLDEST, MERGING, NEWEST])
@pytest.mark.parametrize("fault", ["text", "key", "include"])
def test_nothing_is_concluded_from_an_invalid_file(place: Open, release: str, fault: str) -> None:
    with place(release, {"agents": section(release)}) as here:
        here.write()
        good = here.path.read_text()
        if fault == "text":
            here.put("openclaw.json", good[:-5])
        elif fault == "key":
            here.edit(bogus=1)
        else:
            here.edit(agents={"$include": "./nowhere.json5"})
        writes = here.patches()
        for change, more in (("remove", {}), ("reconcile", {}), ("reconcile", {"only_present": True})):
            errors = {row.error for row in here.write(change, **more)}
            assert len(errors) == 1, errors
            assert "openclaw.json is invalid" in errors.pop()
        assert here.patches() == writes
        here.put("openclaw.json", good)
        assert set(here.ids()) <= set(here.simulator.agents())


def test_a_removal_spoils_no_escape(place: Open) -> None:
    """2026.2.12's own agents.delete would write ${NOT_A_VAR}, and the gateway would start no more."""
    shop = {"name": "Shop $${NOT_A_VAR}", "workspace": "~/shop"}
    with place(OLDEST, {"agents": section(OLDEST, shop=shop)}) as here:
        here.write()
        first, second = here.write("remove")
        assert (first.error, second.error) == (None, None)
        assert f"its files stay in ~/.openclaw/workspace-{here.ids()[0]}" in first.warning
        listed = here.stored["agents"]["list"]
        assert [entry["id"] for entry in listed] == ["main", "ops-bot", "shop"]
        assert listed[2] == {"id": "shop", **shop}
        assert {call.method for call in here.simulator.calls} & {"agents.delete"} == set()


def test_a_removal_that_would_write_out_a_later_entry_is_refused(place: Open) -> None:
    """2026.3.13 keeps a variable by its entry's number, so agents.delete writes the value (measured)."""
    shop = {"name": "Shop at ${OWNERS_URL}"}
    with place(MERGING, {"agents": section(MERGING)}) as here:
        here.write()
        agents = here.stored["agents"]
        agents["list"].append({"id": "shop", **shop})
        here.edit(agents=agents)
        [refused] = here.write("remove", here.fleet.agents[0])
        assert "${OWNERS_URL} at agents.list[shop].name" in refused.error
        assert here.stored["agents"]["list"][-1] == {"id": "shop", **shop}
        here.allow()
        [removed] = here.write("remove", here.fleet.agents[0])
        assert removed.error is None
        assert VARIABLES["OWNERS_URL"] in here.stored["agents"]["list"][-1]["name"], "what was allowed"


@pytest.mark.parametrize("release", [OLDEST, MERGING, NEWEST])
def test_lost_comments_are_a_warning(place: Open, release: str) -> None:
    with place(release, {"agents": section(release)}) as here:
        here.put("openclaw.json", "// the owner's own words\n" + here.path.read_text())
        first, second = here.write()
        assert (first.error, second.error) == (None, None)
        assert "drops the comments" in (first.warning or "") + (second.warning or "")
