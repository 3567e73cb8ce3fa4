"""The database is put back to an older state than that of the gateways, as from a back-up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text

from tests.chaos.scenario import Scenario
from tests.chaos.stage import Site, Stage
from tests.worker_process import ROOT

_COMMAND_S = 120.0


@dataclass(frozen=True)
class Since:
    """What was done on one site since the back-up: which agents have other tokens, which have other texts,
    who was deleted, and the OpenClaw id of one who was added. ``left``: the id of an entry whose row was gone
    before the back-up."""

    site: Site
    rekeyed: Sequence[UUID]
    rewritten: Sequence[UUID]
    deleted: UUID
    added: str
    left: str


def database_restored(stage: Stage) -> None:
    """Agents are rotated, added, deleted and changed, and then the database is as it was before all that.

    A sync must not touch what is newer than the database, and must name it; `orphans` must say that the
    database is older, and remove nothing; and what both name as the cure must be one.
    """
    agents = stage.begin()
    left = [_leave_an_entry(stage, site) for site in stage.sites]
    with _put_back(stage):
        since = [_go_on(stage, site, agents, each) for site, each in zip(stage.sites, left, strict=True)]
    before = _kept(stage)
    syncs = [(each, stage.ended(job)) for each, job in zip(since, stage.syncs(), strict=True)]
    for each, sync in syncs:
        stage.failed += _unnamed(stage, each, sync)
        stage.failed += _unlisted(stage, each)
    after = _kept(stage)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    stage.failed += [f"{name} was changed by what followed the restoration" for name in changed]
    for each in since:
        _cure(stage, each)
    stage.change(agents)


@contextmanager
def _put_back(stage: Stage) -> Iterator[None]:
    """Copy the database, have the block done, and put the copy in its place; all workers are new after."""
    servers, name = stage.services, stage.database
    copy = f"{name}_copy"
    stage.stop_workers()
    stage.workshop.engine.dispose()
    servers.create_database(copy, template=name)
    stage.start_workers()
    yield
    stage.stop_workers()
    stage.workshop.engine.dispose()
    servers.postgres.drop_database(name)
    servers.create_database(name, template=copy)
    servers.postgres.drop_database(copy)
    stage.lose_no_commit()
    stage.start_workers()


def _leave_an_entry(stage: Stage, site: Site) -> str:
    """Have Mission Control delete an agent's row without a job; the OpenClaw id that is left."""
    agent = stage.add(site, "Agent 800")
    stage.done([stage.provision(agent, wake=False)])
    _execute(stage, "DELETE FROM agents WHERE id = :id", id=agent)
    return f"mc-{agent}"


def _go_on(stage: Stage, site: Site, agents: Sequence[UUID], left: str) -> Since:
    """What the back-up will not know."""
    own = list(agents[stage.sites.index(site) * stage.agents :][: stage.agents])
    stage.rng.shuffle(own)
    third = max(1, stage.agents // 3)
    rekeyed, rewritten, deleted = own[:third], own[third - 1 : 2 * third], own[-1]
    added = stage.add(site, "Agent 801")
    for agent in rewritten:
        _execute(stage, "UPDATE agents SET soul_template = 'I am newer.' WHERE id = :id", id=agent)
    stage.done([stage.delete(deleted), stage.provision(added, wake=True)])
    stage.done([stage.update(agent, rotate_tokens=agent in rekeyed) for agent in {*rekeyed, *rewritten}])
    stage.broken += len({*rekeyed, *rewritten}) + 2
    return Since(site, rekeyed, rewritten, deleted, f"mc-{added}", left)


def _unnamed(stage: Stage, since: Since, sync: Any) -> Iterator[str]:
    """What the sync after the restoration should say of agents whose tokens no longer match, and does not."""
    said = {error["agent_id"]: str(error["message"]) for error in sync.result["errors"]}
    for agent in (*since.rekeyed, since.deleted):
        if "rotate_tokens" not in said.get(str(agent), ""):
            yield f"the sync does not name the cure for {agent}: {said.get(str(agent))}"
    for agent in said.keys() - {str(agent) for agent in (*since.rekeyed, since.deleted)}:
        yield f"the sync names {agent}, of whom nothing is amiss: {said[agent]}"


def _unlisted(stage: Stage, since: Since) -> Iterator[str]:
    """What `orphans` should say and does not."""
    gateway = str(since.site.fleet.gateway_id)
    found = json.loads(_provisioner(stage, "orphans", gateway, "--json")[1])
    kinds = {one["id"]: one["kind"] for one in found["orphans"]}
    wanted = {since.added: "not ours", f"mc-{since.deleted}": "row", since.left: "entry"}
    if not wanted.items() <= kinds.items():
        yield f"orphans lists {kinds} in place of {wanted}"
    if not any(since.added in why for why in found["older"]):
        yield f"orphans does not say that the database is older: {found['older']}"
    code, said = _provisioner(stage, "orphans", gateway, "--remove", since.left, "--yes")
    if code == 0 or "may be older" not in " ".join(said.split()):
        yield f"orphans --remove ends with {code}: {said}"


def _cure(stage: Stage, since: Since) -> None:
    """Do what the sync and `orphans` named, and have what is not wanted any more deleted."""
    gateway = since.site.fleet.gateway_id
    stage.done([stage.provision(since.deleted, wake=False)])
    stage.done([stage.ask("sync_gateway", gateway_id=gateway, include_main=False, rotate_tokens=True,
                          overwrite=True)])  # fmt: skip
    adoption = stage.ask(
        "adopt_agent",
        gateway_id=gateway,
        openclaw_id=since.added,
        board_id=since.site.fleet.board_id,
        dry_run=False,
    )
    stage.done([adoption])
    query = text("SELECT agent_id FROM provisioner.job_agents WHERE job_id = :job")
    with stage.workshop.engine.connect() as connection:
        adopted: UUID = connection.execute(query, {"job": adoption}).scalar_one()
    stage.done([stage.ask("delete_agent", agent_id=adopted, delete_files=True)])
    code, said = _provisioner(stage, "orphans", str(gateway), "--remove", since.left, "--yes")
    if code != 0:
        stage.failed.append(f"orphans still removes nothing after the cure: {said}")


def _kept(stage: Stage) -> dict[str, str]:
    """What stands on the gateways, by where: rosters, and every file of a workspace."""
    found = {}
    for number, site in enumerate(stage.sites):
        simulator = site.simulator
        for openclaw_id, entry in simulator.agents().items():
            found[f"entry {openclaw_id} of gateway {number}"] = json.dumps(entry, sort_keys=True)
        for path in simulator.state_dir.rglob("*.md"):
            found[f"gateway {number}: {path.relative_to(simulator.state_dir)}"] = path.read_text()
    return found


def _execute(stage: Stage, statement: str, **values: object) -> None:
    with stage.workshop.engine.begin() as connection:
        connection.execute(text(statement), values)


def _provisioner(stage: Stage, *arguments: str) -> tuple[int, str]:
    """Run the command; its exit code, and what it said."""
    home = os.environ.get("HOME", "/")
    done = subprocess.run(
        [sys.executable, "-m", "worker.cli.app", *arguments],
        cwd=ROOT,
        env={"PATH": os.defpath, "HOME": home, **stage.workshop.environment},
        capture_output=True,
        text=True,
        timeout=_COMMAND_S,
        check=False,
    )
    return done.returncode, done.stdout or done.stderr


SCENARIOS = (Scenario("database restored from a back-up", database_restored),)
