"""What one turn of the roster writer has to settle: intents, what they ask for, and who is to blame."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from worker.database import DATABASE_AWAY
from worker.errors import ProvisionerError, reason_of
from worker.gateway.dialect import Dialect
from worker.gateway.errors import InvalidConfig
from worker.gateway.roster import RosterEntry, RosterPlan, entry_fault
from worker.records.places import Place
from worker.roster.intents import Intent
from worker.roster.rewrite_permission import entry_stays, visibility_stays

log = logging.getLogger(__name__)

MOST_REJECTED_PATCHES = 2
"""Rejected patches count against a gateway's rate limit: no batch costs more of them (decisions.md D1)."""
REMOVALS_A_TURN = 5
"""A patch is one call for all, but each removal is one of its own, of 0.6 s and more on 2026.9.6: nobody is
to wait for all that are wanted."""


def share_of(intents: Sequence[Intent]) -> list[Intent]:
    """What one turn takes on: all that a patch can do, and the oldest removals; a removal of an agent that is
    also to be written is never left for later. An id that one agent leaves to another is written once the
    first is gone."""
    written = {intent.openclaw_id for intent in intents if intent.change == "reconcile"}
    can_wait = [i.id for i in intents if i.change == "remove" and i.openclaw_id not in written]
    later = set(can_wait[REMOVALS_A_TURN:])
    leaving = {intent.openclaw_id: intent.agent_id for intent in intents if intent.change == "remove"}
    later |= {
        i.id
        for i in intents
        if i.change == "reconcile" and leaving.get(i.openclaw_id, i.agent_id) != i.agent_id
    }
    return [intent for intent in intents if intent.id not in later]


@dataclass
class RosterBatch:
    """The intents that were open when the turn began. ``entries``: what the rows of their agents say now, by
    agent; ``refused``: the sentence of each intent that cannot be brought about, by the intent's id;
    ``warned``: what the jobs of intents that end well are told besides; ``held``: those intents whose entry
    is left as it is; ``leaves_visibility``: what is for no single agent is not written; ``homes``: where the
    agents of ``entries`` live; ``spared``: removals of entries that are another agent's."""

    intents: Sequence[Intent]
    entries: Mapping[UUID, RosterEntry]
    refused: dict[int, str] = field(default_factory=dict)
    warned: dict[int, str] = field(default_factory=dict)
    held: set[int] = field(default_factory=set)
    leaves_visibility: bool = False
    rejected: int = 0
    homes: Mapping[UUID, Place] = field(default_factory=dict)
    spared: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        leaving = {intent.openclaw_id for intent in self.intents if intent.change == "remove"}
        for intent in self._open("reconcile"):
            entry = self.entries.get(intent.agent_id)
            if entry is None:
                self.refused[intent.id] = "The agent was deleted, or moved to another gateway."
            elif entry.openclaw_id in leaving:
                self.refused[intent.id] = "The agent is being deleted."
            elif fault := entry_fault(entry):
                self.refused[intent.id] = fault

    def refuse_unwritable(self, dialect: Dialect) -> None:
        """Refuse what a gateway of that dialect could not hold as it is."""
        for intent in self._open("reconcile"):
            if fault := entry_fault(self.entries[intent.agent_id], dialect):
                self.refused[intent.id] = fault

    def confine(self, present: frozenset[str]) -> None:
        """Refuse the intents that are about agents of the roster alone, where it does not hold the agent."""
        for intent in self._open("reconcile"):
            if intent.only_present and intent.openclaw_id not in present:
                self.refused[intent.id] = "It is not in its gateway's roster: provision it first."

    def wanted(self) -> list[RosterEntry]:
        """The entries that the roster must hold, each once."""
        agents = {i.agent_id: None for i in self._open("reconcile") if i.id not in self.held}
        return [self.entries[agent] for agent in agents]

    def entries_of(self, ids: Collection[str]) -> list[RosterEntry]:
        """The entries that are wanted under these OpenClaw ids."""
        return [entry for entry in self.wanted() if entry.openclaw_id in ids]

    def unwanted(self, present: frozenset[str]) -> list[Intent]:
        """The removals that are still to be made."""
        return [
            intent
            for intent in self._open("remove")
            if intent.openclaw_id in present and intent.id not in self.spared
        ]

    def homes_wanted(self) -> dict[UUID, Place]:
        """Where the agents live that are to be written."""
        agents = [intent.agent_id for intent in self._open("reconcile")]
        return {agent: self.homes[agent] for agent in self.homes if agent in agents}

    def gone(self) -> list[tuple[UUID, str]]:
        """Agents that are not on the gateway any more, each with the id that it had there."""
        return [(intent.agent_id, intent.openclaw_id) for intent in self._open("remove")]

    def refuse_writes(self, agent_id: UUID, sentence: str) -> None:
        """Refuse what is wanted of the agent's entry, but not its removal."""
        for intent in self._open("reconcile"):
            if intent.agent_id == agent_id:
                self.refused[intent.id] = sentence

    def refuse_entries(self, sentences: Mapping[str, str]) -> None:
        """Refuse what is wanted of the agents with these OpenClaw ids, each for its own reason."""
        for intent in self._open("reconcile"):
            sentence = sentences.get(self.entries[intent.agent_id].openclaw_id)
            if sentence is not None:
                self.refused[intent.id] = sentence

    def refuse_agent(self, agent_id: UUID, sentence: str) -> None:
        """Refuse all that is wanted of the agent."""
        for intent in self.intents:
            if intent.agent_id == agent_id:
                self.refused.setdefault(intent.id, sentence)

    def refuse_all(self, sentence: str) -> None:
        """Refuse all that is left."""
        for intent in self.intents:
            self.refused.setdefault(intent.id, sentence)

    def hold_back(self, plan: RosterPlan, sentence: str) -> None:
        """End what the plan would write without writing it. Jobs whose agent is in the roster have more to
        do than its entry, so they are told and go on; the others fail."""
        for intent in self._open("reconcile"):
            if self.entries[intent.agent_id].openclaw_id not in plan.changed:
                continue
            if intent.entry_alone or intent.openclaw_id not in plan.present:
                self.refused[intent.id] = sentence
            else:
                self.held.add(intent.id)
                self.warned[intent.id] = entry_stays(sentence)
        if not plan.changed and (first := self._open("reconcile")[:1]):
            self.leaves_visibility = True
            self.warned[first[0].id] = visibility_stays(sentence)

    def leave_files(self, removals: Sequence[Intent], entries: Mapping[str, Mapping[str, Any]]) -> None:
        """Tell who removes agents by a patch that the gateway keeps their workspaces."""
        for intent in removals:
            if intent.delete_files:
                workspace = entries[intent.openclaw_id].get("workspace", "its workspace")
                self.warned[intent.id] = (
                    f"Its entry was removed, but its files stay in {workspace}: an agents.delete of this"
                    " OpenClaw release would spoil the ${NAME} or $${NAME} of others in openclaw.json. Remove"
                    " the folder by hand."
                )

    def first_writer(self, plan: RosterPlan) -> Intent | None:
        """The intent that is answered for first by what the plan changes, None where all were refused."""
        changed = {agent for agent, entry in self.entries.items() if entry.openclaw_id in plan.changed}
        return next((intent for intent in self._open("reconcile") if intent.agent_id in changed), None)

    def blame(self, plan: RosterPlan, error: InvalidConfig) -> None:
        """Refuse the agents that the gateway's complaint names, so that the rest can go on.

        Raises ``error`` where it names none of them, or this was one rejected patch too many.
        """
        self.rejected += 1
        listed = ((plan.document or {}).get("agents") or {}).get("list")
        culprits: dict[UUID, str] = {}
        for path, message in error.issues or (("", str(error)),):
            for agent in {intent.agent_id for intent in self._open("reconcile")}:
                if _names(path or message, self.entries[agent].openclaw_id, listed):
                    culprits[agent] = _sentence(self.entries[agent].name, path, message)
        if not culprits or self.rejected > MOST_REJECTED_PATCHES:
            raise error
        for agent, sentence in culprits.items():
            self.refuse_agent(agent, sentence)

    def _open(self, change: str) -> list[Intent]:
        return [i for i in self.intents if i.change == change and i.id not in self.refused]


def _sentence(name: str, path: str, message: str) -> str:
    column = "agents.heartbeat_config" if ".heartbeat" in path else "what agents says of it"
    where = f"{path}: " if path else ""
    return f"The gateway refuses the roster entry of agent {name!r} ({where}{message}): correct {column}."


def _names(path: str, openclaw_id: str, listed: Any) -> bool:
    if openclaw_id in path:
        return True
    places = [n for n, e in enumerate(listed or []) if isinstance(e, Mapping) and e.get("id") == openclaw_id]
    return any(f"list.{place}." in f"{path}." or f"list[{place}]" in path for place in places)


def plan_apart(
    plan: Callable[[Sequence[RosterEntry]], RosterPlan], wanted: Sequence[RosterEntry]
) -> tuple[RosterPlan, dict[str, str]]:
    """The plan for all ``wanted`` entries that can be planned, and why each of the others cannot, by its
    OpenClaw id: what one agent's row makes of us must not stop its gateway."""
    try:
        return plan(wanted), {}
    except (ProvisionerError, *DATABASE_AWAY):
        raise
    except Exception:
        log.exception("a roster entry is a fault of our own")
    refused: dict[str, str] = {}
    for entry in wanted:
        try:
            plan([entry])
        except Exception as error:
            refused[entry.openclaw_id] = f"Agent {entry.name!r}: {reason_of(error)}"
    return plan([entry for entry in wanted if entry.openclaw_id not in refused]), refused
