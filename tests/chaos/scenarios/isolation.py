"""No organization's work touches another's."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from sqlalchemy import inspect, text

from tests.chaos.scenario import Scenario
from tests.chaos.stage import Site, Stage
from worker.records.template_layers import Layer, add_version, promote, role_target
from worker.workspace.layers import Scope

MARK = "OF-THE-OTHER-ORGANIZATION"
IN_BOTH = ("jobs", "job_agents", "workers", "alembic_version")
"""Tables in which the first organization's jobs may name the other's ids, as they were asked to."""


def organizations_apart(stage: Stage) -> None:
    """One organization asks for everything, also with the ids of another. Nothing of the other's changes, and
    the mark that it has in all that it may set is nowhere in the first one's."""
    stage.commission()
    ours, other = stage.sites
    ours, other = (ours, other) if stage.rng.random() < 0.5 else (other, ours)
    _mark(stage, other)
    rows, files = _rows_of(stage, other), _files_of(other)
    asked = _everything(stage, ours, other)
    stage.rng.shuffle(asked)
    jobs = [stage.workshop.ask(kind, **arguments) for kind, arguments in asked]
    stage.broken += len(jobs)
    for job_id in jobs:
        stage.ended(job_id)
    stage.failed += [f"the other organization's row changed: {row}" for row in _rows_of(stage, other) ^ rows]
    stage.failed += [f"the other's file changed: {file}" for file in _files_of(other) ^ files]
    seen = [name for name, content in _files_of(ours) if MARK in content]
    stage.failed += [f"the other organization's text is in {name}" for name in seen]
    results = _texts(stage, "SELECT concat(kind, ': ', result, warnings, error) FROM provisioner.jobs")
    results |= _texts(
        stage, "SELECT concat(job_id, ': ', files, warnings, reason) FROM provisioner.job_agents"
    )
    stage.failed += [f"the other's text is in a result: {each[:200]}" for each in results if MARK in each]


def _mark(stage: Stage, other: Site) -> None:
    fleet = other.fleet
    targets: dict[Scope, str] = {
        "organization": str(fleet.organization_id),
        "gateway": str(fleet.gateway_id),
        "board": str(fleet.board_id),
        "role": role_target(fleet.organization_id, "member"),
    }
    with stage.workshop.engine.begin() as connection:
        for scope, target in targets.items():
            layer = Layer(scope, target, "theirs")
            for name in ("IDENTITY.md", "SOUL.md"):
                version = add_version(connection, layer, name, MARK, plain=True, note=None, by="theirs")[0]
                promote(connection, layer, {name: version}, by="theirs")
        named = {"gateway": fleet.gateway_id, "board": fleet.board_id, "user": fleet.user_id, "mark": MARK}
        for statement in _MARKS:
            connection.execute(text(statement), named)


def _everything(stage: Stage, ours: Site, other: Site) -> list[tuple[str, dict[str, Any]]]:
    mine, theirs = ours.fleet, other.fleet
    agents, strangers = (_agents(stage, site) for site in (ours, other))
    (other_job,) = _texts(stage, _SYNC, id=theirs.gateway_id)
    (other_bundle,) = _texts(stage, _BUNDLE, id=theirs.gateway_id)
    gateway = {"gateway_id": str(mine.gateway_id)}
    quiet = {"wake": False}
    single = [{"agent_id": agent, **quiet} for agent in agents]
    return [
        *(("update_agent", {**each, "rotate_tokens": True}) for each in single[::3]),
        *(("update_agent", {**each, "user_id": str(theirs.user_id)}) for each in single[1::3]),
        *(("provision_agent", {**each, "user_id": str(theirs.user_id)}) for each in single[2::3]),
        *(("export_agent", {"agent_id": agent}) for agent in agents[:2]),
        ("sync_gateway", {**gateway, "include_main": False, "overwrite": True}),
        ("sync_gateway", {**gateway, "include_main": False, "board_id": str(theirs.board_id)}),
        ("sync_gateway", {**gateway, "include_main": False, "agent_ids": strangers}),
        ("sync_gateway", {**gateway, "include_main": False, "user_id": str(theirs.user_id)}),
        ("sync_heartbeats", {**gateway}),
        ("sync_heartbeats", {**gateway, "agent_ids": strangers}),
        ("roll_out", {**gateway, "include_main": False, "canary": ",".join(strangers), "dry_run": True}),
        ("adopt_gateway", {**gateway, "board_id": str(theirs.board_id), "dry_run": False}),
        *(
            ("adopt_agent", {**gateway, "openclaw_id": f"mc-{agents[0]}", "dry_run": False, **whom})
            for whom in ({"agent_id": strangers[0]}, {"board_id": str(theirs.board_id)})
        ),
        ("rollback_job", {**gateway, "undo_job_id": other_job, **quiet}),
        ("rollback", {"agent_id": agents[0], "undo_job_id": other_job, **quiet}),
        ("ensure_board_lead", {"board_id": str(uuid4()), "user_id": str(theirs.user_id)}),
        (
            "restore_agent",
            {"agent_id": str(uuid4()), "bundle_id": other_bundle, "board_id": str(mine.board_id), **quiet},
        ),
    ]


def _agents(stage: Stage, site: Site) -> list[str]:
    found = _texts(
        stage, "SELECT CAST(id AS text) FROM agents WHERE gateway_id = :id", id=site.fleet.gateway_id
    )
    return sorted(found)


def _rows_of(stage: Stage, site: Site) -> set[str]:
    """All rows in which an id of the organization stands, but for those of jobs."""
    fleet = site.fleet
    ids = [fleet.organization_id, fleet.user_id, fleet.gateway_id, fleet.board_id, *_agents(stage, site)]
    tables = inspect(stage.workshop.engine)
    found: set[str] = set()
    for schema in ("public", "provisioner"):
        for table in sorted(set(tables.get_table_names(schema)) - set(IN_BOTH)):
            statement = f"SELECT '{table} ' || to_jsonb(t)::text FROM {schema}.{table} t"
            found |= {row for row in _texts(stage, statement) if any(str(each) in row for each in ids)}
    return found


def _texts(stage: Stage, statement: str, **values: Any) -> set[str]:
    with stage.workshop.engine.connect() as connection:
        return {str(row[0]) for row in connection.execute(text(statement), values)}


def _files_of(site: Site) -> set[tuple[str, str]]:
    """The files of the gateway, its config and its agents' workspaces."""
    folder = site.simulator.state_dir
    return {
        (str(path.relative_to(folder)), path.read_text(errors="replace"))
        for path in folder.rglob("*")
        if path.is_file()
    }


_SYNC = "SELECT min(CAST(id AS text)) FROM provisioner.jobs WHERE gateway_id = :id AND kind = 'sync_gateway'"
_BUNDLE = "SELECT min(CAST(id AS text)) FROM provisioner.agent_bundles WHERE gateway_id = :id"
_MARKS = (
    "UPDATE boards SET objective = :mark WHERE id = :board",
    "UPDATE users SET notes = :mark, name = :mark WHERE id = :user",
    "INSERT INTO provisioner.agent_settings (scope, target_id, field, value)"
    " VALUES ('gateway', :gateway, 'model', to_jsonb(CAST(:mark AS text))),"
    " ('board', :board, 'identity.theme', to_jsonb(CAST(:mark AS text)))",
)

SCENARIOS = (Scenario("organizations apart", organizations_apart),)
