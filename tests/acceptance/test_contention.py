"""Rotation, updates and delete of the same agents, all asked for in one moment, with two workers to do it:
never two jobs at work on an agent, and an end as some order of them, one after another, gives it
(decisions.md D5).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.acceptance.agent_history import Execution, executions_of, overlapping, share_out
from tests.acceptance.row_watch import RowWatch
from tests.acceptance.world import Settled, World
from worker.workspace.tokens import find_token, verify_token

pytestmark = pytest.mark.last

ROTATION = ("update_agent", {"rotate_tokens": True, "wake": False})
FOR_ALL = (ROTATION, ("update_agent", {"wake": False}), ("update_agent", {"wake": False, "overwrite": True}))
DELETE: tuple[str, dict[str, Any]] = ("delete_agent", {})
PROVISION = ("provision_agent", {"reset_session": False})
BEATING = 3
SIMULATED = 14
"""How many agents on a simulator: more of them prove nothing more."""


@dataclass
class Agent:
    """One agent, what was asked for it, and what happened to it."""

    settled: Settled
    token_before: str
    executions: list[Execution]
    stray: list[str]

    @property
    def id(self) -> UUID:
        return self.settled.agent_id


@dataclass
class ConcurrentJobs:
    """All that was asked for in one moment, once it is over. ``jobs``: rows of the jobs by their ids."""

    world: World
    agents: list[Agent]
    doomed: set[UUID]
    jobs: Mapping[UUID, Mapping[str, Any]]
    heartbeats: UUID

    def kinds(self, agent: Agent) -> list[str]:
        """What the jobs of the agent were, in the order of their executions."""
        return [self.jobs[execution.job_id]["kind"] for execution in agent.executions]

    def survivors(self) -> list[Agent]:
        return [agent for agent in self.agents if agent.id not in self.doomed]


@pytest.fixture(scope="module")
def concurrent(world: World) -> ConcurrentJobs:
    agents = world.many[: world.on_boards if world.real else SIMULATED]
    # A delete costs 2026.9.6 a second and more.
    stride = 5 if world.is_slow else 2
    doomed = {agent.agent_id for agent in agents[::stride]}
    again = {agent.agent_id for agent in agents[::7]}
    survivors = [agent.agent_id for agent in agents if agent.agent_id not in doomed]
    beating = [*survivors[:BEATING], *(agent.agent_id for agent in agents[::stride][:BEATING])]
    changes = [(agent.agent_id, *wanted) for agent in agents for wanted in FOR_ALL]
    changes += [(agent, *DELETE) for agent in doomed] + [(agent, *PROVISION) for agent in again]
    random.shuffle(changes)
    tokens = dict(zip(agents, live_tokens(world, agents), strict=True))
    for agent_id in beating:
        world.set_agent(agent_id, heartbeat_config={"every": "45m"})
    world.start_worker()
    with RowWatch(world.engine) as watch:
        world.proxy.forget()
        heartbeats = world.ask(
            "sync_heartbeats", gateway_id=world.fleet.gateway_id, agent_ids=[str(key) for key in beating]
        )
        asked = [world.send(agent_id, kind, **options) for agent_id, kind, options in changes]
        # Twenty-five deletes are twenty-five calls one after another: 2026.9.6 takes 0.6 s for each when the
        # machine is quiet, and 10 s when it is not.
        jobs = {job: world.ended(job, 2 * world.timeout_s) for job in [heartbeats, *asked]}
        noted, frames = watch.steps(), world.proxy.frames
    histories = []
    for agent in agents:
        executions = executions_of(agent.agent_id, noted)
        stray = share_out(agent.openclaw_id, executions, frames)
        histories.append(Agent(agent, tokens[agent], executions, [frame.method for frame in stray]))
    waits = sum(step.step == "postponed" for step in noted)
    first, last = noted[0].at, noted[-1].at
    print(f"\n{len(jobs)} jobs in {last - first:.1f} s, {waits} messages that found the agent busy")
    return ConcurrentJobs(world, histories, doomed, jobs, heartbeats)


def live_tokens(world: World, agents: Sequence[Settled]) -> list[str]:
    carrier = "AGENTS.md" if world.release >= "2026.8" else "TOOLS.md"
    texts = world.contents([agent.openclaw_id for agent in agents], carrier)
    return [str(find_token(text, section=carrier == "AGENTS.md")) for text in texts]


def test_never_two_jobs_are_at_work_on_an_agent(concurrent: ConcurrentJobs) -> None:
    for agent in concurrent.agents:
        assert len(agent.executions) >= len(FOR_ALL), agent.id
        assert overlapping(agent.executions) == [], agent.id


def test_no_call_about_an_agent_is_made_but_by_the_job_that_has_it(concurrent: ConcurrentJobs) -> None:
    for agent in concurrent.agents:
        assert agent.stray == [], agent.id
        for execution in agent.executions:
            kind = concurrent.jobs[execution.job_id]["kind"]
            methods = {frame.method for frame in execution.frames}
            removals = methods & {"agents.delete", "sessions.delete"}
            writes = methods & {"agents.files.set", "cron.scratch.set", "chat.send"}
            assert not (writes if kind == "delete_agent" else removals), (agent.id, kind)
            for frame in execution.frames:
                if frame.method == "chat.send":
                    assert str(execution.job_id) in frame.params["idempotencyKey"], agent.id
    assert any(execution.frames for agent in concurrent.agents for execution in agent.executions)


def test_every_job_ends_as_its_place_in_the_order_says(concurrent: ConcurrentJobs) -> None:
    for agent in concurrent.agents:
        token, deleted = agent.token_before, False
        for execution in agent.executions:
            job = concurrent.jobs[execution.job_id]
            if deleted:
                assert_refused(concurrent, agent, job)
                assert execution.frames == [], (agent.id, job["kind"])
                continue
            assert job["status"] == "succeeded", (agent.id, job["kind"], job["error"])
            token = next_token(concurrent.world, job, execution, token)
            deleted = job["kind"] == "delete_agent"
        assert deleted is (agent.id in concurrent.doomed)
        if not deleted:
            assert live_tokens(concurrent.world, [agent.settled]) == [token]


def assert_refused(concurrent: ConcurrentJobs, agent: Agent, job: Mapping[str, Any]) -> None:
    """A job that came after the delete says so."""
    assert (job["status"], job["error"]) == ("failed", f"There is no agent with agent_id {agent.id}.")


def next_token(world: World, job: Mapping[str, Any], execution: Execution, token: str) -> str:
    """The token after a execution: a rotation brought one new one, nothing else brought any."""
    section = world.release >= "2026.8"
    brought = {
        find_token(frame.params["content"], section=section)
        for frame in execution.frames
        if frame.method == "agents.files.set"
        and frame.params["name"] == ("AGENTS.md" if section else "TOOLS.md")
    }
    if not job["options"].get("rotate_tokens"):
        assert brought <= {token}, job["id"]
        return token
    assert job["result"]["token"] == "rotated"
    [new] = brought
    assert new not in (None, token)
    return str(new)


def test_what_was_deleted_is_gone_everywhere(concurrent: ConcurrentJobs) -> None:
    world = concurrent.world
    gone = [agent.settled for agent in concurrent.agents if agent.id in concurrent.doomed]
    assert not {agent.openclaw_id for agent in gone} & set(world.roster())
    with world.engine.connect() as connection:
        left = connection.execute(_LEFT, {"agents": [agent.agent_id for agent in gone]}).scalar_one()
    assert left == 0


def test_what_was_not_deleted_is_online_with_a_token_that_is_its_own(concurrent: ConcurrentJobs) -> None:
    survivors = concurrent.survivors()
    tokens = live_tokens(concurrent.world, [agent.settled for agent in survivors])
    for agent, token in zip(survivors, tokens, strict=True):
        row = concurrent.world.agent(agent.id)
        assert row["status"] == "online", agent.id
        assert verify_token(token, row["agent_token_hash"]), agent.id
        assert concurrent.world.pending_hash(agent.id) is None, agent.id
        assert agent.settled.openclaw_id in concurrent.world.roster()


def test_heartbeats_of_the_survivors_are_changed_amid_it_all(concurrent: ConcurrentJobs) -> None:
    """Those of agents that are being deleted meanwhile may come first or too late."""
    job = concurrent.jobs[concurrent.heartbeats]
    assert job["status"] in ("succeeded", "partial"), job["error"]
    assert BEATING <= job["result"]["updated"] <= 2 * BEATING, job["error"]
    assert not {str(agent.id) for agent in concurrent.survivors()} & {
        error["agent_id"] for error in job["result"]["errors"]
    }
    roster = concurrent.world.roster()
    for agent in concurrent.survivors()[:BEATING]:
        assert roster[agent.settled.openclaw_id]["heartbeat"]["every"] == "45m"


_LEFT = text("""
    SELECT (SELECT count(*) FROM agents WHERE id = ANY(:agents))
        + (SELECT count(*) FROM provisioner.agent_credentials WHERE agent_id = ANY(:agents))
        + (SELECT count(*) FROM provisioner.agent_files WHERE agent_id = ANY(:agents))
""")
