"""The one reading of the roster, from answers of real releases (2026.2.12, 2026.3.13, 2026.9.6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from worker.gateway.dialect import Dialect
from worker.gateway.roster_plan import RosterEntry, plan_roster, removal_patch
from worker.gateway.roster_reading import LiveRoster, RosterUnknownError, read_roster

OLDEST = Dialect.from_hello("dev", ["config.get"])
MERGING = Dialect.from_hello("2026.3.13", ["config.get", "secrets.reload"])
NEWEST = Dialect.from_hello("2026.9.6", ["cron.scratch.set", "agents.workspace.list", "secrets.reload"])
MAIN, BOT = {"id": "main", "default": True}, {"id": "ops-bot", "name": "Ops ${NOT_A_VAR}"}
ENTRIES: Mapping[str, Any] = {"main": {}, "ops-bot": {"name": "Ops"}}


def answer(parsed: Any, config: Any = None, **more: Any) -> dict[str, Any]:
    return {"valid": True, "parsed": parsed, "config": config or parsed, "issues": [], **more}


def in_files(agents: Any, merged: Any, **root: Any) -> dict[str, Any]:
    """config.get's answer: ``agents`` is that section of the root file, ``merged`` that of all files."""
    return answer({**root, "agents": agents}, {**root, "agents": merged})


@pytest.mark.parametrize(
    ("parsed", "config"),
    [
        ({"agents": {"$include": "./agents.json5"}}, {"agents": {"list": [MAIN, BOT]}}),
        ({"agents": {"list": {"$include": "./list.json5"}}}, {"agents": {"list": [MAIN, BOT]}}),
        ({"agents": {"$include": ["./a.json5", "./b.json5"]}}, {"agents": {"list": [MAIN, BOT]}}),
        ({"$include": "./base.json5", "gateway": {}}, {"agents": {"list": [MAIN, BOT]}, "gateway": {}}),
        ({"agents": {"list": [MAIN, {"$include": "./bot.json5"}]}}, {"agents": {"list": [MAIN, BOT]}}),
        ({"agents": {"$include": "./bot.json5", "list": [MAIN]}}, {"agents": {"list": [BOT, MAIN]}}),
    ],
    ids=["section", "list", "several files", "root", "entry", "sibling"],
)
@pytest.mark.parametrize("dialect", [OLDEST, MERGING], ids=["replaces", "merges"])
def test_a_list_is_read_and_sent_back_whole_wherever_it_is_written(
    dialect: Dialect, parsed: Any, config: Any
) -> None:
    live = LiveRoster.of(dialect, answer(parsed, config))
    assert live.present == {"main", "ops-bot"}
    plan = plan_roster(dialect, live.document, [RosterEntry("mc-1", "One", "/w")])
    assert plan.document is not None
    sent = {entry["id"]: entry for entry in plan.document["agents"]["list"]}
    assert list(sent) == [entry["id"] for entry in config["agents"]["list"]] + ["mc-1"]
    assert sent["main"] == MAIN
    assert sent["ops-bot"]["name"] == "Ops $${NOT_A_VAR}", "config.get has undone the owner's escape"


@pytest.mark.parametrize(
    "agents",
    [
        {"$include": "./agents.json5"},
        {"entries": {"$include": "__OPENCLAW_REDACTED__"}},
        {"entries": {"main": {}, "ops-bot": {"$include": "./bot.json5"}}},
    ],
)
def test_entries_are_read_wherever_they_are_written(agents: Any) -> None:
    live = LiveRoster.of(NEWEST, in_files(agents, {"ownership": "explicit", "entries": ENTRIES}))
    assert live.present == {"main", "ops-bot"}
    plan = plan_roster(NEWEST, live.document, [RosterEntry("ops-bot", "Ops", "/w")])
    assert plan.document is not None
    assert set(plan.patches["ops-bot"]) == {"workspace", "heartbeat"}


def test_what_stands_in_the_root_file_is_sent_back_as_it_is_written_there() -> None:
    written = {"id": "shop", "name": "at ${SHOP_URL}"}
    parsed = {"agents": {"list": [MAIN, written, {"$include": "./bot.json5"}]}}
    shown = {"agents": {"list": [MAIN, {**written, "name": "at http://shop"}, BOT]}}
    assert LiveRoster.of(MERGING, answer(parsed, shown)).entries["shop"] == written


def test_a_variable_without_a_value_in_an_included_file_is_no_text() -> None:
    warnings = [{"path": "agents.list[1].name", "message": 'Missing env var "NOT_A_VAR" - feature off'}]
    given = in_files({"$include": "./a.json5"}, {"list": [MAIN, BOT]})
    assert LiveRoster.of(MERGING, {**given, "warnings": warnings}).entries["ops-bot"] == BOT


@pytest.mark.parametrize("written", ["MC-1", " mc-1 ", "Mc 1"])
def test_an_agent_goes_by_one_id_however_it_is_written(written: str) -> None:
    """Measured: all releases run ``Mc-BIG`` as mc-big."""
    wanted = RosterEntry("mc-1", "One", "/w")
    listed = plan_roster(OLDEST, {"agents": {"list": [{"id": written, "keep": 1}]}}, [wanted])
    assert listed.document is not None
    assert [(e["id"], e["keep"]) for e in listed.document["agents"]["list"]] == [(written, 1)]
    mapped = plan_roster(NEWEST, {"agents": {"entries": {written: {}}}}, [wanted])
    assert mapped.present == {"mc-1"}
    assert mapped.document is not None
    assert list(mapped.document["agents"]["entries"]) == [written]


@pytest.mark.parametrize("stranger", [{"id": 42}, {"name": "no id"}, {"id": None}])
def test_an_entry_that_no_agent_can_be_told_from_stays_as_it_is(stranger: Any) -> None:
    given = {"agents": {"list": [MAIN, stranger]}}
    plan = plan_roster(OLDEST, given, [RosterEntry("main", "Main", "/w")])
    assert plan.document is not None
    assert plan.document["agents"]["list"][1] == stranger


@pytest.mark.parametrize(
    "given",
    [
        {
            "valid": False,
            "parsed": None,
            "config": {},
            "issues": [{"path": "", "message": "JSON5 parse failed"}],
        },
        {"valid": False, "parsed": {}, "config": {}, "issues": []},
        {"valid": False, "parsed": {"agents": {"list": [MAIN]}}, "config": {"agents": {"list": [MAIN]}}},
        {"valid": True, "parsed": None, "config": {"agents": {"list": [MAIN]}}},
        {"parsed": {"agents": {"$include": "./a.json5"}}, "config": None, "valid": True},
    ],
    ids=["9.6", "2.12", "2.12 but for one key", "no root file", "includes nobody shows"],
)
def test_an_unknown_roster_is_never_an_empty_one(given: Any) -> None:
    with pytest.raises(RosterUnknownError, match=r"openclaw\.json .* unknown"):
        LiveRoster.of(OLDEST, given)


def test_a_gateway_that_runs_somebody_its_files_do_not_name_is_not_believed() -> None:
    given = in_files({"$include": "./agents.json5"}, {"list": [MAIN]})
    listed = {"defaultId": "main", "mainKey": "main", "agents": [{"id": "main"}, {"id": "ops-bot"}]}
    with pytest.raises(RosterUnknownError, match="runs ops-bot"):
        LiveRoster.of(OLDEST, given, listed)


def reading(*answers: Any) -> tuple[list[str], Callable[[], LiveRoster]]:
    """The calls made so far, and a read of a gateway that gives these answers to config.get."""
    given, made = iter(answers), []

    def get_config() -> Any:
        made.append("config.get")
        return next(given)

    def list_agents() -> Any:
        made.append("agents.list")
        return {"agents": []}

    return made, lambda: read_roster(OLDEST, get_config, list_agents, lambda _: None)


def test_a_removal_by_patch_leaves_every_secret_in_its_place() -> None:
    """2026.2.12 restores secrets by their index in the list: a moved entry would get another one's."""
    secret = {"apiKey": "__OPENCLAW_REDACTED__"}
    entries = [MAIN, {"id": "mc-1"}, {"id": "shop", **secret}, {"id": "mc-2"}]
    patch = removal_patch({"agents": {"list": entries}}, {"mc-1"})
    assert patch is not None
    assert [entry["id"] for entry in patch["agents"]["list"]] == ["main", "mc-2", "shop"]
    assert removal_patch({"agents": {"list": entries[:3]}}, {"mc-1"}) is None


def test_a_file_that_is_being_saved_is_read_again() -> None:
    invalid: dict[str, Any] = {"valid": False, "parsed": None, "config": {}}
    made, read = reading(invalid, invalid, answer({"agents": {"list": [MAIN]}}))
    assert read().present == {"main"}
    assert made == ["config.get"] * 3
    made, read = reading(invalid, invalid, invalid)
    with pytest.raises(RosterUnknownError):
        read()


def test_agents_are_listed_only_where_the_config_has_includes() -> None:
    made, read = reading(answer({"agents": {"list": [MAIN]}}))
    read()
    assert made == ["config.get"]
    made, read = reading(in_files({"$include": "./a"}, {"list": [MAIN]}))
    read()
    assert made == ["config.get", "agents.list"]


@pytest.mark.parametrize("dialect", [OLDEST, MERGING, NEWEST], ids=["replaces", "merges", "entries"])
@pytest.mark.parametrize("agents", [[], "x", 1, {"list": {}, "entries": []}, {"list": "x", "entries": "x"}])
def test_a_roster_of_another_form_is_not_an_empty_one(dialect: Dialect, agents: Any) -> None:
    with pytest.raises(RosterUnknownError, match="is not what OpenClaw keeps there"):
        LiveRoster.of(dialect, answer({"agents": agents}))
    with pytest.raises(RosterUnknownError, match="is not what OpenClaw keeps there"):
        LiveRoster.of(dialect, in_files({"$include": "./agents.json5"}, agents))
