"""Gateways that do not serve hold up no other one, and no organization's work touches another's."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import inspect, text

from tests.chaos.scenario import Scenario
from tests.chaos.stage import Site, Stage
from tests.integration.agents.fleet import execute
from tests.integration.worker.planting import plant
from tests.integration.worker.workshop import Place
from worker.lab.simulator import Fault
from worker.lab.simulator.faults import Delay, Flood, Kind, Silence
from worker.records.template_layers import Layer, add_version, promote, role_target
from worker.workspace.layers import Scope

RELEASE = "2026.9.6"
PLANTED, SINGLES, ROUNDS = 50, 20, 5
ANSWER_S = 0.6
"""How long the healthy gateway takes for a listing, so that its sync lasts for five seconds."""
SHORTEST_S = 5.0
AS_SHIPPED = {
    "LEASE_S": "30",
    "DISPATCH_INTERVAL_S": "1",
    "RETRY_INLINE_S": "20",
    "RETRY_TIMEOUT_S": "600",
    "ROSTER_BATCH_WINDOW_S": "0.2",
    "LOG_LEVEL": "INFO",
}
"""The settings that workers have by themselves: those of the stage have them try again much more often."""
MOST_TIMES, MORE_S = 1.2, 0.2
MARK = "OF-THE-OTHER-ORGANIZATION"
IN_BOTH = ("jobs", "job_agents", "workers", "alembic_version")
"""Tables in which the first organization's jobs may name the other's ids, as they were asked to."""


def bad_neighbours(stage: Stage) -> None:
    """A dead, a slow, a silent and a flooding gateway, each with a sync and twenty single jobs, beside one
    that serves: its sync, which writes a file of every agent, takes hardly longer than alone. Afterwards all
    of their jobs succeed.

    The commission is done while the four are bad, on gateways that serve.
    """
    stage.stop_workers()
    for _ in range(2):
        stage.workshop.start_worker(**AS_SHIPPED)
    here = stage.workshop.place(RELEASE, agents=PLANTED)
    bad = [stage.workshop.place(RELEASE, agents=PLANTED) for _ in range(4)]
    for place in (here, *bad):
        plant(place, place.fleet.agents)
        _sync_s(stage, place)
    here.simulator.faults.schedule(Fault(Delay(ANSWER_S), "agents.workspace.list", times=None))
    alone, beside = [], []
    for _ in range(ROUNDS):
        alone.append(_sync_s(stage, here))
        jobs = _spoil(stage, bad)
        time.sleep(0.3)
        beside.append(_sync_s(stage, here))
        _heal(bad)
        stage.broken += len(bad)
        stage.done(jobs)
    jobs = _spoil(stage, bad)
    stage.commission()
    _heal(bad)
    stage.broken += len(bad)
    stage.done(jobs)
    _compare(stage, alone, beside)


def _compare(stage: Stage, alone: Sequence[float], beside: Sequence[float]) -> None:
    shown = [" ".join(f"{each:.2f}" for each in rounds) for rounds in (alone, beside)]
    print(f"    seconds of a sync alone: {shown[0]}; beside bad neighbours: {shown[1]}", flush=True)
    alone_s, beside_s = statistics.median(alone), statistics.median(beside)
    if alone_s < SHORTEST_S:
        stage.failed.append(f"the sync takes {alone_s:.2f} s alone, less than {SHORTEST_S:g}")
    if beside_s > MOST_TIMES * alone_s + MORE_S:
        stage.failed.append(f"a sync takes {beside_s:.2f} s beside bad neighbours, {alone_s:.2f} s alone")


def _sync_s(stage: Stage, place: Place) -> float:
    """Change a fact of all agents, and sync them; the seconds that took."""
    execute(stage.workshop.engine, "UPDATE boards SET objective = :text", text=f"Anew, {uuid4()}.")
    began = time.monotonic()
    stage.done([_sync(stage, place)])
    return time.monotonic() - began


def _sync(stage: Stage, place: Place) -> UUID:
    return stage.workshop.ask("sync_gateway", gateway_id=place.fleet.gateway_id, include_main=False)


def _spoil(stage: Stage, bad: Sequence[Place]) -> list[UUID]:
    """Have each fail in its own way, and ask for a sync and single jobs of each; the jobs."""
    dead, *others = bad
    dead.simulator.kill()
    kinds: list[Kind] = [Delay(5.0), Silence(), Flood(2_000, 500)]
    for place, kind in zip(others, kinds, strict=True):
        place.simulator.faults.schedule(Fault(kind, times=None))
    jobs = [_sync(stage, place) for place in bad]
    return jobs + [
        stage.workshop.ask("update_agent", agent_id=agent, wake=False)
        for place in bad
        for agent in place.fleet.agents[:SINGLES]
    ]


def _heal(bad: Sequence[Place]) -> None:
    bad[0].simulator.start()
    for place in bad[1:]:
        place.simulator.faults.clear()
        place.simulator.restart()  # a silent connection stays silent


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

SCENARIOS = (
    Scenario("bad neighbours", bad_neighbours, agents=4, full_agents=4),
    Scenario("organizations apart", organizations_apart),
)
