"""What happens in one seed's world: services ask, an outsider edits, faults strike, workers die, time passes;
and what must be left of it all, whatever the order: what one writer would have made of the same changes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import text

from tests.integration.agents.fleet import insert_job
from tests.integration.interleavings.baton import WRITES, Actor
from tests.integration.interleavings.stage import MOST_ACTORS, Stage
from worker.gateway.dialect import Dialect
from worker.gateway.errors import TransientGatewayError
from worker.gateway.heartbeats import heartbeat_block
from worker.lab.simulator.faults import Delay, Drop, FakeReply, Fault, Kind, Refuse, Restart
from worker.lab.simulator.workspaces import with_home
from worker.runtime.services import Services

OWNERS = "owners-own"
"""An agent of the gateway's owner, in its roster from the start, with a key that we do not know."""
_STALE = Refuse("config changed since last load; re-run config.get and retry", "INVALID_REQUEST")
_BUSY = Refuse("The server is busy. Please try again in a moment.", retryable=True)
_LIMITED = Refuse("rate limit exceeded for config.patch; retry after 1s", retryable=True, retry_after_ms=1000)
_MOST_TURNS = 1500
_KINDS: Mapping[str, Sequence[Kind]] = {
    "config.patch": [
        Drop(),
        Drop(carried_out=True),
        Delay(0.02),
        Delay(0.02, carried_out=True),
        Restart(),
        Restart(carried_out=True),
        Restart(answered=True, carried_out=True, delay_s=0.01),
        FakeReply(),
        _STALE,
        _LIMITED,
    ],
    "agents.delete": [
        Drop(),
        Drop(carried_out=True),
        Restart(),
        Restart(carried_out=True),
        FakeReply(),
        _BUSY,
    ],
    "config.get": [Drop(), Restart(), Delay(0.01), _BUSY],
}


@dataclass
class Program:
    """``known``: agents that were in the roster from the start, with their entries. ``tried``: what the
    outsider sent an edit of, ``edited``: what it saw done; ``asleep``: who is, and for how many turns;
    ``jumps``, ``kills``: how many are left; ``lied``: whether a lie of the gateway's has been ordered."""

    stage: Stage
    random: random.Random
    known: Mapping[UUID, Mapping[str, Any]]
    tried: set[str] = field(default_factory=set)
    edited: set[str] = field(default_factory=set)
    asleep: dict[Actor, int] = field(default_factory=dict)
    jumps: int = 0
    kills: int = 0
    lied: bool = False

    def run(self) -> None:
        """Let it all happen, and come to rest. Raises AssertionError where it does not."""
        stage, chance = self.stage, self.random
        for _ in range(chance.choice([0, 1, 1, 2, 3])):
            self._order_fault()
        todo = [self._change() for _ in range(chance.randint(3, 6))]
        todo += [self._edit] * chance.choice([0, 1, 1, 2])
        chance.shuffle(todo)
        self.jumps, self.kills = chance.choice([0, 1, 2, 3, 4]), chance.choice([0, 0, 1, 2])
        for _ in range(_MOST_TURNS):
            if not (stage.actors or stage.messages or todo or self._goes_on()):
                break
            if not self._somebody_sleeps():
                acts = self._acts(todo)
                chance.choices([act for act, _ in acts], [weight for _, weight in acts])[0]()
        self._come_to_rest()

    def _acts(self, todo: list[Callable[[], None]]) -> list[tuple[Callable[[], object], float]]:
        """What may happen next, and how likely each is."""
        stage, awake, victims = self.stage, self._awake(), self._victims()
        acts: list[tuple[Callable[[], object], float]] = [(stage.tick, 6)]
        if awake:
            acts.append((lambda: stage.step(self.random.choice(awake)), 60))
        if todo:
            acts.append((lambda: todo.pop()(), 15))
        if stage.messages and len(stage.actors) < MOST_ACTORS:
            acts.append((stage.deliver, 20))
        if self.jumps and stage.actors:
            acts.append((self._jump, 0.2))
        if self.kills and victims:
            acts.append((lambda: self._kill(self.random.choice(victims)), 1))
        return acts

    def _jump(self) -> bool:
        jumped = self.stage.jump()
        self.jumps -= jumped
        return jumped

    def _kill(self, victim: Actor) -> None:
        self.kills -= 1
        self.stage.kill(victim)

    def _goes_on(self) -> bool:
        """Whether there is something to do yet, where nobody is at work: what waits for its time gets it."""
        if not self.stage.open():
            return False
        self.stage.tick()
        if not self.stage.messages:
            self.stage.jump()
            self.stage.tick()
        return True

    def _come_to_rest(self) -> None:
        stage = self.stage
        stage.simulator.faults.clear()
        for _ in range(40):
            stage.jump()
            stage.tick()
            while stage.messages or stage.actors:
                if stage.messages and len(stage.actors) < MOST_ACTORS:
                    stage.deliver()
                else:
                    stage.step(self.random.choice(stage.actors))
            if not stage.open():
                return
        raise AssertionError("something stays open for ever")

    def _somebody_sleeps(self) -> bool:
        """Let somebody fall asleep who is about to write, or to say how it went; let who slept before a write
        wake while somebody else's is being carried out. There are no worse moments."""
        actors = self.stage.actors
        if any(actor.writing for actor in actors):
            late = next((actor for actor in actors if actor in self.asleep and actor.at in WRITES), None)
            if late is not None:
                del self.asleep[late]
                self.stage.step(late)
            return late is not None
        for actor in actors:
            settles = actor.name.startswith("write_roster") and actor.at == "a transaction"
            likely = 0.1 if actor.at in WRITES else 0.02 if settles else 0.0
            if self.jumps and actor not in self.asleep and self.random.random() < likely and self._jump():
                self.asleep[actor] = self.random.randint(20, 60)
                self.stage.log.append(f"{actor} falls asleep")
                return True
        return False

    def _awake(self) -> list[Actor]:
        """Those who are, one turn later; the others sleep on only while there is somebody."""
        self.asleep = {actor: left - 1 for actor, left in self.asleep.items() if left > 0}
        awake = [actor for actor in self.stage.actors if actor not in self.asleep]
        if not awake and not self.stage.messages:
            self.asleep.clear()
        return awake

    def _victims(self) -> list[Actor]:
        return [actor for actor in self.stage.actors if not actor.name.startswith("outsider")]

    def _order_fault(self) -> None:
        method = self.random.choice(["config.patch"] * 3 + ["agents.delete", "config.get"])
        kind = self.random.choice(_KINDS[method])
        nth, times = self.random.randint(1, 3), self.random.choice([1, 1, 2])
        if isinstance(kind, FakeReply):  # after two in a row a job rightly ends, with nothing done
            kind, times = (Drop(), times) if self.lied else (kind, 1)
            self.lied = True
        fault = Fault(kind, method, nth=nth, times=times)
        self.stage.log.append(f"ordered: {fault}")
        self.stage.simulator.faults.schedule(fault)

    # --- changes --------------------------------------------------------------------------------------------

    def _change(self) -> Callable[[], None]:
        return self.random.choice(
            [self._provision, self._provision, self._provision, self._delete, self._delete, self._heartbeats]
        )

    def _agent(self) -> UUID:
        return self.random.choice(self.stage.fleet.agents)

    def _provision(self) -> None:
        """A service renames an agent, and asks for it."""
        agent_id, name = self._agent(), f"Name {self.random.randrange(1000)}"
        with self.stage.engine.begin() as connection:
            connection.execute(_RENAME, {"id": agent_id, "name": name})
        insert_job(self.stage.engine, agent_id, options="{}")
        self.stage.log.append(f"provision {agent_id} as {name}")

    def _delete(self) -> None:
        agent_id, keep = self._agent(), self.random.random() < 0.5
        options = json.dumps({"delete_row": not keep, "gateway_id": str(self.stage.fleet.gateway_id)})
        insert_job(self.stage.engine, agent_id, kind="delete_agent", options=options)
        self.stage.log.append(f"delete {agent_id}, row {'kept' if keep else 'deleted'}")

    def _heartbeats(self) -> None:
        every = f"{self.random.randint(1, 50)}m"
        chosen = self.random.sample(self.stage.fleet.agents, self.random.randint(1, 2))
        with self.stage.engine.begin() as connection:
            connection.execute(_BEAT, {"ids": chosen, "every": json.dumps({"every": every})})
            rows = connection.execute(_ROWS, {"ids": chosen}).scalars().all()
            if rows:
                options = json.dumps({"agent_ids": [str(key) for key in rows]})
                values = {"options": options, "gateway_id": self.stage.fleet.gateway_id}
                connection.execute(_SYNC_HEARTBEATS, values)
        self.stage.log.append(f"heartbeats of {len(rows)}: {every}")

    # --- the outsider --------------------------------------------------------------------------------------

    def _edit(self) -> None:
        self.stage.start("outsider", self.random.choice([self._edit_key, self._edit_own_agent]))

    def _edit_key(self, services: Services) -> None:
        """An unrelated key of the config."""
        wanted = {"messages": {"ackReactionScope": "direct"}}
        self._patch(services, "scope", lambda parsed: None if _scope(parsed) == "direct" else wanted)

    def _edit_own_agent(self, services: Services) -> None:
        """An entry that is none of ours; where the roster is a list, the list is sent whole."""

        def document(parsed: Mapping[str, Any]) -> Mapping[str, Any] | None:
            agents = parsed["agents"]
            entries = agents.get("entries") or {entry["id"]: entry for entry in agents["list"]}
            if entries[OWNERS]["name"] == "Edited":
                return None
            if "entries" in agents:
                return {"agents": {"entries": {OWNERS: {"name": "Edited"}}}}
            listed = [{**e, "name": "Edited"} if e["id"] == OWNERS else e for e in agents["list"]]
            return {"agents": {"list": listed}}

        self._patch(services, "own agent", document)

    def _patch(
        self,
        services: Services,
        what: str,
        document: Callable[[Mapping[str, Any]], Mapping[str, Any] | None],
    ) -> None:
        """Edit, and look whether it was done, as docs/roster.md advises."""
        client = services.clients.client(self.stage.address)
        for _ in range(10):
            try:
                config = client.call("config.get")
                patch = document(config["parsed"])
                if patch is None:
                    self.edited.add(what)
                    return
                self.tried.add(what)
                client.call("config.patch", {"raw": json.dumps(patch), "baseHash": config["hash"]})
            except TransientGatewayError:
                continue

    # --- what must be left ---------------------------------------------------------------------------------

    def verify(self, dialect: Dialect) -> None:
        """Compare the roster with what a serial run of the same changes leaves. Where a release loses
        one of two writes at once and an outsider's met ours, its own edit may be lost, and an agent that was
        being removed may be back (docs/roster.md)."""
        stage = self.stage
        with stage.engine.connect() as connection:
            sentences = set(connection.execute(_SENTENCES).scalars())
        assert all(any(known in said for known in _EXPECTED) for said in sentences), sentences
        forgiven = stage.overlapped and stage.simulator.release.loses_concurrent_writes
        config = stage.config()
        roster = stage.simulator.agents()
        expected = self._spelt_out(self._expected(dialect))
        found = self._spelt_out({key: entry for key, entry in roster.items() if key.startswith("mc-")})
        if forgiven:
            assert expected.items() <= found.items(), (expected, found)
        else:
            assert found == expected, (expected, found)
            there = {"own agent"} if roster[OWNERS]["name"] == "Edited" else set()
            there |= {"scope"} if _scope(config) == "direct" else set()
            assert self.edited <= there <= self.tried, (self.edited, there, self.tried)
        assert roster[OWNERS]["identity"] == {"emoji": "owl"}
        assert config["ui"] == {"seamColor": "#123456"}

    def _spelt_out(self, entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
        """The entries with each home folder spelt out, where the release does that at any agents.delete."""
        if not self.stage.simulator.release.writes_out_variables:
            return dict(entries)
        state_dir = self.stage.simulator.state_dir
        return {
            key: {**entry, "workspace": with_home(entry["workspace"], state_dir)}
            if "workspace" in entry
            else entry
            for key, entry in entries.items()
        }

    def _expected(self, dialect: Dialect) -> dict[str, Mapping[str, Any]]:
        with self.stage.engine.connect() as connection:
            rows = {row.id: row for row in connection.execute(_AGENTS)}
            ended = connection.execute(_ENDED).all()
            wanted = set(connection.execute(_APPLIED).scalars())
        present = {agent_id: dict(entry) for agent_id, entry in self.known.items()}
        for row in ended:
            if row.kind == "delete_agent":
                present.pop(row.agent_id, None)
            elif row.agent_id in rows:
                present.setdefault(row.agent_id, {})
        for agent_id in present.keys() & wanted:
            row = rows[agent_id]
            present[agent_id] |= {
                "name": row.name,
                "workspace": f"~/.openclaw/workspace-mc-{agent_id}",
                "heartbeat": heartbeat_block(dialect, row.heartbeat_config or {}),
            }
        return {f"mc-{agent_id}": entry for agent_id, entry in present.items()}


def _scope(config: Mapping[str, Any]) -> Any:
    return config.get("messages", {}).get("ackReactionScope")


_RENAME = text("UPDATE agents SET name = :name WHERE id = :id")
_BEAT = text("UPDATE agents SET heartbeat_config = CAST(:every AS json) WHERE id = ANY(:ids)")
_ROWS = text("SELECT id FROM agents WHERE id = ANY(:ids)")
_SYNC_HEARTBEATS = text("""
    INSERT INTO provisioner.jobs (id, kind, gateway_id, options)
    VALUES (gen_random_uuid(), 'sync_heartbeats', :gateway_id, CAST(:options AS jsonb))
""")
_AGENTS = text("SELECT id, name, heartbeat_config FROM agents")
_ENDED = text("""
    SELECT r.agent_id, j.kind FROM provisioner.job_agents r JOIN provisioner.jobs j ON j.id = r.job_id
    WHERE r.status = 'succeeded' AND j.kind <> 'sync_heartbeats' ORDER BY r.finished_at
""")
_SENTENCES = text("""
    SELECT error FROM provisioner.roster_intents WHERE error IS NOT NULL
    UNION ALL SELECT reason FROM provisioner.job_agents WHERE status NOT IN ('succeeded', 'pending')
    UNION ALL SELECT error FROM provisioner.jobs WHERE error IS NOT NULL
""")
_EXPECTED = (
    "The agent was deleted, or moved to another gateway.",
    "The agent is being deleted.",
    "It is not in its gateway's roster: provision it first.",
    "There is no agent with agent_id",
    "agent_ids: gateway 'workshop' has no agent",
)
_APPLIED = text("""
    SELECT DISTINCT agent_id FROM provisioner.roster_intents
    WHERE change = 'reconcile' AND applied_at IS NOT NULL
""")
