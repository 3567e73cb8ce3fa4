"""A batch of intents that the roster writer settles together, and what it decides about each of them."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from worker.database import DATABASE_AWAY
from worker.errors import ProvisionerError, reason_of
from worker.gateway.dialect import Dialect
from worker.gateway.entry_settings import looks_secret, overlap
from worker.gateway.errors import InvalidConfig
from worker.gateway.roster_plan import RosterEntry, RosterPlan, entry_fault
from worker.gateway.variables import REDACTED, strings_of
from worker.jobs.states import ReasonCode, code_of
from worker.records.file_changes import EntryChange
from worker.records.gateway_repository import Wanted
from worker.records.places import Place
from worker.roster.intents import Intent, Refusal
from worker.roster.rewrite_permission import entry_stays, visibility_stays

log = logging.getLogger(__name__)

MOST_REJECTED_PATCHES = 2
"""Limit on rejected patches in one batch: they count against the gateway's rate limit (decisions.md D1)."""
REMOVALS_PER_BATCH = 5
"""Limit on the removals in one batch, so that the jobs in it do not wait long: a patch is one call however
many agents it changes, but each removal is a separate call, which takes 0.6 s or more on 2026.9.6."""
_ELSEWHERE = Refusal("The agent was deleted, or moved to another gateway.", ReasonCode.AGENT_DELETED)
_LEAVING = Refusal("The agent is being deleted.", ReasonCode.AGENT_DELETED)
_ABSENT = Refusal(
    "It is not in its gateway's roster: provision it first.",
    ReasonCode.NOT_REGISTERED,
)


def select_batch(intents: Sequence[Intent]) -> list[Intent]:
    """Select the next batch: all writes, since they fit into one patch, and the oldest removals.

    The removal of an id for which there is also a write is never postponed. If an id passes from one agent to
    another, the write for the new agent waits until the old one has been removed.
    """
    written = {intent.openclaw_id for intent in intents if intent.change == "reconcile"}
    can_wait = [i.id for i in intents if i.change == "remove" and i.openclaw_id not in written]
    later = set(can_wait[REMOVALS_PER_BATCH:])
    leaving = {intent.openclaw_id: intent.agent_id for intent in intents if intent.change == "remove"}
    later |= {
        i.id
        for i in intents
        if i.change == "reconcile" and leaving.get(i.openclaw_id, i.agent_id) != i.agent_id
    }
    return [intent for intent in intents if intent.id not in later]


@dataclass
class RosterBatch:
    """The intents of a batch, and what has been decided about each.

    ``entries``: by agent, the roster entry that the agent's row now calls for; ``refused``: by intent id, why
    the intent cannot be applied; ``warned``: by intent id, a warning for the job of an intent that is
    applied; ``held``: ids of intents that count as applied although their entry is left unchanged;
    ``leaves_visibility``: do not write the channels' heartbeat visibility, which belongs to no single agent;
    ``rejected``: how many patches the gateway has rejected so far; ``homes``: where the agents of
    ``entries`` live; ``skipped``: ids of removals that are not made because the entry must stay.
    """

    intents: Sequence[Intent]
    entries: Mapping[UUID, RosterEntry] = field(default_factory=dict)
    refused: dict[int, Refusal] = field(default_factory=dict)
    warned: dict[int, str] = field(default_factory=dict)
    held: set[int] = field(default_factory=set)
    leaves_visibility: bool = False
    rejected: int = 0
    homes: Mapping[UUID, Place] = field(default_factory=dict)
    skipped: set[int] = field(default_factory=set)

    def read(self, agents: Mapping[UUID, Wanted]) -> None:
        """Take over what the agents' rows now call for, and refuse the writes for agents that are gone, are
        being removed, or have a faulty entry."""
        self.entries = {agent: wanted.entry for agent, wanted in agents.items()}
        self.homes = {agent: wanted.home for agent, wanted in agents.items()}
        leaving = {intent.openclaw_id for intent in self.intents if intent.change == "remove"}
        for intent in self._open("reconcile"):
            entry = self.entries.get(intent.agent_id)
            if entry is None:
                self.refused[intent.id] = _ELSEWHERE
            elif entry.openclaw_id in leaving:
                self.refused[intent.id] = _LEAVING
            elif fault := entry_fault(entry):
                self.refused[intent.id] = Refusal(fault, ReasonCode.PERMANENT_ERROR)

    def refuse_unwritable(self, dialect: Dialect) -> None:
        """Refuse the writes of entries that a gateway of this dialect cannot store."""
        for intent in self._open("reconcile"):
            if fault := entry_fault(self.entries[intent.agent_id], dialect):
                self.refused[intent.id] = Refusal(fault, ReasonCode.PERMANENT_ERROR)

    def refuse_absent(self, present: frozenset[str]) -> None:
        """Refuse ``only_present`` intents whose agent is not in the roster."""
        for intent in self._open("reconcile"):
            if intent.only_present and intent.openclaw_id not in present:
                self.refused[intent.id] = _ABSENT

    def wanted(self) -> list[RosterEntry]:
        """The entries to be written, each once, without those that are refused or held."""
        agents = {i.agent_id: None for i in self._open("reconcile") if i.id not in self.held}
        return [self.entries[agent] for agent in agents]

    @property
    def names(self) -> dict[str, str]:
        """The agents' names by OpenClaw id."""
        return {entry.openclaw_id: entry.name for entry in self.entries.values()}

    def note_fields(self, plan: RosterPlan) -> None:
        """Warn the jobs of agents whose owner changed fields that settings name, or named."""
        for intent in self._open("reconcile"):
            for note in plan.notes_on(self.entries[intent.agent_id].openclaw_id):
                said = self.warned.get(intent.id, "")
                if note not in said:
                    self.warned[intent.id] = f"{said} {note}".lstrip()

    def replaced(self, plan: RosterPlan) -> Iterator[EntryChange]:
        """What the plan replaces in entries, for each job that has it written."""
        for intent in self._open("reconcile"):
            former = plan.former.get(self.entries[intent.agent_id].openclaw_id)
            if former is not None:
                hidden = {name for name, value in former.items() if is_hidden(name, value)}
                kept = {name: value for name, value in former.items() if name not in hidden}
                yield EntryChange(intent.job_id, intent.agent_id, kept, tuple(sorted(hidden)))

    def entries_of(self, ids: Collection[str]) -> list[RosterEntry]:
        """The wanted entries with these OpenClaw ids."""
        return [entry for entry in self.wanted() if entry.openclaw_id in ids]

    def unwanted(self, present: frozenset[str]) -> list[Intent]:
        """The removals still to be made: the roster has the id, and they are neither refused nor skipped."""
        return [
            intent
            for intent in self._open("remove")
            if intent.openclaw_id in present and intent.id not in self.skipped
        ]

    def homes_wanted(self) -> dict[UUID, Place]:
        """Where the agents to be written live, by agent."""
        agents = [intent.agent_id for intent in self._open("reconcile")]
        return {agent: self.homes[agent] for agent in self.homes if agent in agents}

    def removed(self) -> list[tuple[UUID, str]]:
        """The agents whose removal was not refused, each with the OpenClaw id it had on the gateway."""
        return [(intent.agent_id, intent.openclaw_id) for intent in self._open("remove")]

    def gone(self) -> list[str]:
        """The ids whose entry was removed and did not have to stay."""
        return [i.openclaw_id for i in self._open("remove") if i.id not in self.skipped]

    def refuse_writes(self, agent_id: UUID, refusal: Refusal) -> None:
        """Refuse the agent's writes, but not its removals."""
        for intent in self._open("reconcile"):
            if intent.agent_id == agent_id:
                self.refused[intent.id] = refusal

    def refuse_entries(self, refusals: Mapping[str, Refusal]) -> None:
        """Refuse to write the entries in ``refusals``, by OpenClaw id."""
        for intent in self._open("reconcile"):
            refusal = refusals.get(self.entries[intent.agent_id].openclaw_id)
            if refusal is not None:
                self.refused[intent.id] = refusal

    def refuse_agent(self, agent_id: UUID, refusal: Refusal) -> None:
        """Refuse every intent of the agent."""
        for intent in self.intents:
            if intent.agent_id == agent_id:
                self.refused.setdefault(intent.id, refusal)

    def refuse_all(self, refusal: Refusal) -> None:
        """Refuse every intent that has not been refused yet."""
        for intent in self.intents:
            self.refused.setdefault(intent.id, refusal)

    def hold_back(self, plan: RosterPlan, refusal: Refusal) -> None:
        """Decide about the intents whose entries the plan changes, given that the patch must not be written.

        If the agent is already in the roster and its job does more than write the entry, the job continues
        with the refusal's sentence as a warning; otherwise its intent is refused. If the plan changes nothing
        but the heartbeat visibility, the first open intent gets the warning.
        """
        for intent in self._open("reconcile"):
            if self.entries[intent.agent_id].openclaw_id not in plan.changed:
                continue
            if intent.entry_alone or intent.openclaw_id not in plan.present:
                self.refused[intent.id] = refusal
            else:
                self.held.add(intent.id)
                self.warned[intent.id] = entry_stays(refusal)
        if not plan.changed and (first := self._open("reconcile")[:1]):
            self.leaves_visibility = True
            self.warned[first[0].id] = visibility_stays(refusal)

    def leave_files(self, removals: Sequence[Intent], entries: Mapping[str, Mapping[str, Any]]) -> None:
        """Add to removals that are made by a patch the warning that the workspaces stay on the gateway."""
        for intent in removals:
            if intent.delete_files:
                workspace = entries[intent.openclaw_id].get("workspace", "its workspace")
                self.warned[intent.id] = (
                    f"Its entry was removed, but its files stay in {workspace}: an agents.delete of this"
                    " OpenClaw release would spoil the ${NAME} or $${NAME} of others in openclaw.json. Remove"
                    " the folder by hand."
                )

    def first_writer(self, plan: RosterPlan) -> Intent | None:
        """The first open intent whose entry the plan changes, or None if they were all refused."""
        changed = {agent for agent, entry in self.entries.items() if entry.openclaw_id in plan.changed}
        return next((intent for intent in self._open("reconcile") if intent.agent_id in changed), None)

    def blame(self, plan: RosterPlan, error: InvalidConfig) -> None:
        """Refuse the agents that the gateway's error names, so that the others can be written.

        Raises ``error`` if it names no agent of the batch, or after more than MOST_REJECTED_PATCHES.
        """
        self.rejected += 1
        listed = ((plan.document or {}).get("agents") or {}).get("list")
        culprits: dict[UUID, Refusal] = {}
        for path, message in error.issues or (("", str(error)),):
            for agent in {intent.agent_id for intent in self._open("reconcile")}:
                if _names(path or message, self.entries[agent].openclaw_id, listed):
                    sentence = _sentence(self.entries[agent], path, message)
                    culprits[agent] = Refusal(sentence, code_of(error))
        if not culprits or self.rejected > MOST_REJECTED_PATCHES:
            raise error
        for agent, refusal in culprits.items():
            self.refuse_agent(agent, refusal)

    def _open(self, change: str) -> list[Intent]:
        return [i for i in self.intents if i.change == change and i.id not in self.refused]


def _sentence(entry: RosterEntry, path: str, message: str) -> str:
    named = _settings_named(entry, path, message)
    column = "agents.heartbeat_config" if ".heartbeat" in path else "what agents says of it"
    if named:
        column = f"its settings ({', '.join(named)})"
    where = f"{path}: " if path else ""
    return (
        f"The gateway refuses the roster entry of agent {entry.name!r} ({where}{message}): correct {column}."
    )


def _settings_named(entry: RosterEntry, path: str, message: str) -> list[str]:
    """The settings that a gateway's refusal is about: ``agents.list.3.tools``, or a key in its message."""
    within = path.partition(f".{entry.openclaw_id}.")[2] or re.sub(r"^agents\.list[.\[]\d+\]?\.?", "", path)
    names = sorted(entry.settings)
    if within and not within.endswith(entry.openclaw_id):
        return [name for name in names if overlap(name, within)]
    return [name for name in names if f'"{name.partition(".")[0]}"' in message]


def _names(path: str, openclaw_id: str, listed: Any) -> bool:
    if openclaw_id in path:
        return True
    places = [n for n, e in enumerate(listed or []) if isinstance(e, Mapping) and e.get("id") == openclaw_id]
    return any(f"list.{place}." in f"{path}." or f"list[{place}]" in path for place in places)


def plan_without_faulty(
    plan: Callable[[Sequence[RosterEntry]], RosterPlan], wanted: Sequence[RosterEntry]
) -> tuple[RosterPlan, dict[str, Refusal]]:
    """Call ``plan`` for the ``wanted`` entries, without those for which it raises an unexpected exception.

    So one agent's faulty row does not stop the writes to its gateway. Returns the plan and, by OpenClaw id,
    the refusals of the entries that were left out.
    """
    try:
        return plan(wanted), {}
    except (ProvisionerError, *DATABASE_AWAY):
        raise
    except Exception:
        log.exception("a roster entry is a fault of our own")
    refused: dict[str, Refusal] = {}
    for entry in wanted:
        try:
            plan([entry])
        except Exception as error:
            sentence = f"Agent {entry.name!r}: {reason_of(error)}"
            refused[entry.openclaw_id] = Refusal(sentence, code_of(error))
    return plan([entry for entry in wanted if entry.openclaw_id not in refused]), refused


def is_hidden(name: str, value: Any) -> bool:
    """Whether a value of an entry is not kept: it is a secret, or it holds a variable of its owner's."""
    return looks_secret(name, value) or any("${" in each or REDACTED in each for _, each in strings_of(value))
