"""What doctor makes of a roster, of workspaces and of an owner's config: sentences with a cure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from worker.cli.console import named
from worker.cli.doctor.fleet import Fleet
from worker.cli.doctor.owner import check_heartbeats, check_variables
from worker.cli.doctor.report import Finding
from worker.cli.doctor.roster import check_roster
from worker.cli.doctor.workspaces import check_file_support, check_renderings
from worker.gateway.address import GatewayAddress
from worker.gateway.dialect import Dialect
from worker.gateway.heartbeats import heartbeat_block
from worker.records.agent_repository import AgentRecord, GatewayCondition
from worker.workspace.context import AgentFacts, BoardFacts, GatewayFacts

OLD = Dialect.from_hello("dev", ["config.get"])
MERGING = Dialect.from_hello("2026.3.13", ["config.get"])
NEW = Dialect.from_hello("2026.9.6", ["cron.scratch.set", "agents.workspace.list"])
FAMILIES = pytest.mark.parametrize("dialect", [OLD, NEW], ids=lambda dialect: dialect.family)
ADA = UUID(int=1)
ZOE = "mc-00000000-0000-0000-0000-0000000000ff"


def record(**agent: Any) -> AgentRecord:
    return AgentRecord(
        agent=AgentFacts(**{"id": ADA, "name": "Ada", **agent}),
        status="online",
        token_hash=None,
        stored_session_key=None,
        board=BoardFacts(id=UUID(int=2), name="Launch"),
        gateway=GatewayFacts(id=UUID(int=3), name="g", url="ws://h:1", workspace_root="/w"),
        address=GatewayAddress("ws://h:1"),
        organization_id=UUID(int=4),
        user=None,
        condition=GatewayCondition(None, None, None),
        verified_hash=None,
        pending_hash=None,
        replaces_hash=None,
        credential_job_id=None,
        provisioned_before=False,
    )


def config(dialect: Dialect, entries: Mapping[str, Any], **agents: Any) -> dict[str, Any]:
    """A parsed config with that roster, in the family's own shape."""
    if dialect.roster == "entries":
        return {"agents": {"entries": dict(entries), **agents}}
    return {"agents": {"list": [{"id": key, **entry} for key, entry in entries.items()], **agents}}


def entry(dialect: Dialect, one: AgentRecord) -> dict[str, Any]:
    return {
        "name": one.agent.name,
        "workspace": one.workspace,
        "heartbeat": heartbeat_block(dialect, one.heartbeat),
    }


def roster(dialect: Dialect, entries: Mapping[str, Any], fleet: Fleet) -> list[Finding]:
    return list(check_roster(dialect, config(dialect, entries), fleet, "my gateway"))


@FAMILIES
def test_a_roster_that_agrees_is_one_good_finding(dialect: Dialect) -> None:
    ada = record()
    entries = {"main": {}, "owners-own": {"name": "x"}, ada.openclaw_id: entry(dialect, ada)}
    (found,) = roster(dialect, entries, Fleet([ada]))
    assert (found.status, "1 agent" in found.says) == ("ok", True)


@FAMILIES
def test_what_differs_is_named_by_key_with_the_command_that_mends_it(dialect: Dialect) -> None:
    ada = record()
    entries = {ada.openclaw_id: entry(dialect, ada) | {"heartbeat": {"every": "1h"}, "workspace": "/else"}}
    moving, found = roster(dialect, entries, Fleet([ada]))
    assert (moving.status, moving.about) == ("warning", ["Ada"])
    assert "its token in /else, and the next roster write will point it to /w/workspace-mc-" in moving.says
    assert found.status == "warning"
    assert found.about == ["Ada"]
    assert "workspace" in found.says
    assert "heartbeat.every" in found.says
    assert "provisioner update NAME" in found.says
    assert 'provisioner heartbeats "my gateway"' in found.says


@FAMILIES
def test_an_agent_that_is_gone_is_a_fault_and_one_that_never_was_there_a_warning(dialect: Dialect) -> None:
    gone, never = replace(record(name="Gone"), provisioned_before=True), record(name="New", id=UUID(int=9))
    found = roster(dialect, {}, Fleet([gone, never]))
    assert [(one.status, one.about) for one in found] == [("fault", ["Gone"]), ("warning", ["New"])]
    assert all("provisioner provision NAME" in one.says for one in found)


@FAMILIES
def test_orphans_are_ours_alone_and_each_has_a_way_out(dialect: Dialect) -> None:
    lead = "lead-00000000-0000-0000-0000-0000000000aa"
    moved = "mc-00000000-0000-0000-0000-0000000000bb"
    entries: dict[str, Any] = {"main": {}, "mc-donalds": {}, ZOE: {}, lead: {}, moved: {}}
    found = roster(dialect, entries, Fleet(elsewhere={moved: "other"}, former={moved: "Bo"}))
    says = {one.about[0]: one.says for one in found}
    assert set(says) == {ZOE, lead, moved}
    assert {one.status for one in found} == {"warning"}
    assert f'provisioner delete {ZOE.removeprefix("mc-")} --gateway "my gateway"' in says[ZOE]
    assert "openclaw agents delete" in says[lead]
    assert "belongs to gateway other now. Unless that is this same gateway under" in says[moved]
    [twin] = roster(dialect, {moved: {}}, Fleet(elsewhere={moved: "other"}, twins=frozenset({"other"})))
    assert "it lives here, so leave it" in twin.says
    assert "delete" not in twin.says


@FAMILIES
@pytest.mark.parametrize("recorded", [True, False], ids=["on record", "by its id alone"])
def test_an_entry_of_an_agent_that_has_a_row_is_no_orphan(dialect: Dialect, recorded: bool) -> None:
    former = {ZOE: "Zoe Q"} if recorded else {}
    names = {UUID(ZOE.removeprefix("mc-")): "Zoe Q"}
    (found,) = roster(dialect, {ZOE: {}}, Fleet(former=former, names=names))
    assert (
        found.says == f"{ZOE} is where agent 'Zoe Q' was before: `provisioner provision \"Zoe Q\"` moves it"
    )
    moved = roster(dialect, {ZOE: {}}, Fleet(elsewhere={ZOE: "other"}, names=names))[0]
    assert "provisioner" not in moved.says
    assert f"run `openclaw agents delete {ZOE}`" in moved.says


def test_an_agent_whose_rows_are_refused_is_a_fault_and_no_orphan() -> None:
    fleet = Fleet(refused=["Agent 'Zoe' has no board."], refused_ids=frozenset({ZOE}))
    found = roster(NEW, {ZOE: {}}, fleet)
    assert [(one.status, one.says) for one in found] == [("fault", "Agent 'Zoe' has no board.")]


def test_file_support_names_other_ways_and_what_is_lost() -> None:
    (new,), (old,) = list(check_file_support(NEW)), list(check_file_support(OLD))
    assert "TOOLS.md as a section of AGENTS.md" in new.says
    assert "HEARTBEAT.md as the heartbeat scratch" in new.says
    assert new.about == old.about == ["AUTONOMY.md", "BOOT.md", "SELF.md", "TASK_SOUL.md"]
    assert " as the " not in old.says


def test_a_gateway_that_takes_no_credentials_is_a_fault() -> None:
    (found,) = check_file_support(NEW.without_file("AGENTS.md"))
    assert found.status == "fault"


def test_a_broken_override_names_agent_line_and_column() -> None:
    broken = record(soul_template="fine\n{% for x in y %}{% endfor %}")
    (found,) = check_renderings(NEW, [broken], "https://mc.example")
    assert found.status == "fault"
    assert "Ada: the SOUL.md override, line 2" in found.says
    assert "agents.soul_template" in found.says


def test_a_file_beyond_the_budget_is_a_warning_and_the_others_are_still_looked_at() -> None:
    long = record(soul_template="x" * 20_001)
    broken = record(name="Ben", identity_template="{{ nothing_such }}")
    found = list(check_renderings(NEW, [long, broken], None))
    assert [(one.status, one.about) for one in found] == [("warning", ["Ada"]), ("fault", ["Ben"])]
    assert "SOUL.md has 20,001 characters" in found[0].says


def test_the_longest_file_of_a_sound_fleet_is_told() -> None:
    (found,) = check_renderings(OLD, [record()], "https://mc.example")
    assert found.status == "ok"
    assert "of Ada" in found.says
    assert "of 20,000" in found.says


@FAMILIES
def test_the_owner_is_warned_before_the_first_heartbeat_block(dialect: Dialect) -> None:
    defaults = {"heartbeat": {"every": "30m"}}
    (implicit,) = check_heartbeats(dialect, {"agents": {"defaults": defaults}})
    (listed,) = check_heartbeats(dialect, config(dialect, {"main": {}, "shop": {}}, defaults=defaults))
    assert implicit.about == ["main"]
    assert listed.about == (["main", "shop"] if dialect is NEW else ["main"])
    assert "before that" in listed.says
    (unset,) = check_heartbeats(dialect, config(dialect, {"main": {}}))
    assert unset.about == ["main"]
    assert "KEEP_DEFAULT_HEARTBEAT" in unset.says


@FAMILIES
def test_the_owner_is_told_who_is_silent_since(dialect: Dialect) -> None:
    defaults = {"heartbeat": {"every": "30m"}}
    entries = {"main": {}, "shop": {"heartbeat": {}}, ZOE: {"heartbeat": {"every": "10m"}}}
    (found,) = check_heartbeats(dialect, config(dialect, entries, defaults=defaults))
    assert (found.status, found.about) == ("warning", ["main"])
    assert "silent" in found.says


@FAMILIES
@pytest.mark.parametrize("every", ["0m", "0", "0s"])
def test_who_beats_neither_way_is_not_warned(dialect: Dialect, every: str) -> None:
    defaults = {"heartbeat": {"every": every}}
    assert list(check_heartbeats(dialect, config(dialect, {"main": {}}, defaults=defaults))) == []
    own = {"main": {}, ZOE: {"heartbeat": {"every": "10m"}}}
    assert list(check_heartbeats(dialect, config(dialect, own))) == []


def test_variables_are_a_warning_on_the_release_that_writes_their_values_only() -> None:
    live = {"parsed": {"models": [{"baseUrl": "${SHOP_URL}", "apiKey": "__OPENCLAW_REDACTED__"}]}}
    (found,) = check_variables(OLD, live)
    assert (found.status, found.about) == ("warning", ["${SHOP_URL}"])
    assert list(check_variables(MERGING, live)) == []
    assert list(check_variables(NEW, live)) == []


def test_a_hidden_secret_may_be_a_variable_and_is_named_by_its_path() -> None:
    hidden = {"models": [{"apiKey": "__OPENCLAW_REDACTED__"}]}
    token = {"gateway": {"auth": {"token": "__OPENCLAW_REDACTED__"}}, "note": "$${ESCAPED}"}
    (found,) = check_variables(OLD, {"parsed": {**hidden, **token}})
    assert "models[0].apiKey" in found.says
    (unseen,) = check_variables(OLD, {"parsed": token})
    assert (unseen.status, "gateway.auth.token" in unseen.says) == ("ok", True)


def test_an_agent_whose_secret_may_be_a_variable_is_named_by_its_id() -> None:
    hidden = {"agents": {"list": [{"id": "main"}, {"id": "shop", "apiKey": "__OPENCLAW_REDACTED__"}]}}
    (found,) = check_variables(OLD, {"parsed": hidden})
    assert found.about == ["agents.list[shop].apiKey"]


def test_a_gateway_that_does_not_say_its_version_is_known_by_its_care_for_secrets() -> None:
    assert OLD.writes_variables
    assert not Dialect.from_hello("dev", ["config.get", "secrets.reload"]).writes_variables
    assert not MERGING.writes_variables
    assert not NEW.writes_variables


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a"], "a"),
        (["a", "b"], "a and b"),
        (["a", "b", "c"], "a, b and c"),
        (list("abcdefg"), "a, b, c, d, e and 2 more"),
    ],
)
def test_names_are_listed_as_people_do(names: list[str], words: str) -> None:
    assert named(names) == words
