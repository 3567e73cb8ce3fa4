"""Plans the rings of a roll-out from what dry runs found that it changes (rules.md 56). Pure."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar
from uuid import UUID

from worker.errors import PermanentError
from worker.jobs.requests import Canary
from worker.workspace.actions import WRITES

GROWTH = 3
"""How many times as large as the ring before a ring is."""
LEAST_SHARE = 0.1
"""The least part of all agents that a ring after the first one has."""
NAMES_SHOWN = 5


@dataclass(frozen=True)
class Changing:
    """An agent that a roll-out changes. ``change``: the same for all whose files and entries change alike;
    ``entry``: its roster entry changes too; ``fails``: why it cannot be rendered or looked at, if so;
    ``former``: by field, what its entry has where that changes."""

    agent_id: UUID
    name: str
    gateway_id: UUID
    is_main: bool
    change: str
    entry: bool = False
    fails: str | None = None
    former: Mapping[str, Any] = field(default_factory=dict)


class _HasChange(Protocol):
    @property
    def change(self) -> str: ...


_Changed = TypeVar("_Changed", bound=_HasChange)


@dataclass(frozen=True)
class RingPlan:
    """The rings, the first of them first. ``left_out``: for each change of which the first ring has no agent,
    the names of all agents that get it."""

    rings: Sequence[Sequence[Changing]]
    left_out: Sequence[Sequence[str]] = ()


def change_of(row: Any) -> Changing | None:
    """What a sync would change of the agent of a dry run's row; None if nothing.

    An agent whose dry run failed counts as changing, so that it is met in a ring and counted there.
    """
    writes = {name: file for name, file in sorted(row.files.items()) if file.get("action") in WRITES}
    roster: Mapping[str, Any] = row.roster or {}
    entry = roster.get("action") in WRITES
    fails = row.reason or row.status if row.status in ("failed", "not_attempted") else None
    if fails is None and (row.status != "succeeded" or not (writes or entry)):
        return None
    facts = _facts(row)
    parts: list[Any] = [row.is_main]
    parts += [
        [name, file["action"], _neutral(_changed_lines(file.get("diff", "")), facts)]
        for name, file in writes.items()
    ]
    parts += [_neutral(json.dumps(roster.get("changes"), sort_keys=True), facts)] if entry else []
    parts += ["fails", row.reason_code] if fails else []
    change = hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode()).hexdigest()[:12]
    former = roster.get("former") or {}
    return Changing(row.agent_id, row.agent_name, row.gateway_id, row.is_main, change, entry, fails, former)


def _facts(row: Any) -> list[str]:
    """What tells this agent's renderings from those of others that get the same change; longest first."""
    facts = {row.agent_name, str(row.agent_id), row.openclaw_id, row.board_name, str(row.board_id)}
    return sorted((fact for fact in facts if fact), key=lambda fact: (-len(fact), fact))


def _changed_lines(diff: str) -> str:
    """The lines of a unified diff that go or come, without their places."""
    lines = [line for line in diff.splitlines() if line.startswith(("+", "-"))]
    return "\n".join(line for line in lines if not line.startswith(("+++", "---")))


def _neutral(text: str, facts: Sequence[str]) -> str:
    """The text with the agent's own facts taken out of it."""
    for fact in facts:
        text = text.replace(fact, "\x00")
    return text


def plan_rings(changing: Sequence[Changing], canary: Canary, names: Mapping[UUID, str]) -> RingPlan:
    """Put each of the agents into a ring.

    The first ring has one agent for each change, of changes of many agents first, as far as its size reaches,
    and is then filled up; later rings take gateway by gateway, so that few of them restart in each, and main
    agents last. ``names``: of agents that do not change. Raises PermanentError if an agent that is named for
    the first ring does not change.
    """
    order = sorted(
        changing, key=lambda each: (each.is_main, str(each.gateway_id), each.name, str(each.agent_id))
    )
    groups: dict[str, list[Changing]] = {}
    for each in order:
        groups.setdefault(each.change, []).append(each)
    ranked = sorted(groups.values(), key=lambda group: (group[0].is_main, -len(group), group[0].name))
    if canary.agents:
        first = _named(order, canary.agents, names)
    else:
        size = canary.count or max(1, math.ceil(len(order) * (canary.percent or 0) / 100))
        first = [group[0] for group in ranked][:size]
        first += [each for each in order if each not in first][: size - len(first)]
    covered = {each.change for each in first}
    left_out = [[each.name for each in group] for group in ranked if group[0].change not in covered]
    rest = [each for each in order if each not in first]
    rings = [first]
    while rest:
        size = max(GROWTH * len(rings[-1]), math.ceil(LEAST_SHARE * len(order)))
        rings.append(rest[:size])
        rest = rest[size:]
    return RingPlan(rings, left_out)


def require_looked_at(agents: Iterable[UUID], looked_at: Container[UUID], names: Mapping[UUID, str]) -> None:
    """Raise PermanentError if an agent that is named for the first ring is none of those looked at."""
    strangers = [names.get(agent, str(agent)) for agent in agents if agent not in looked_at]
    if strangers:
        raise PermanentError(
            f"canary: {', '.join(strangers)} cannot be in the first ring, for no gateway or board of this"
            " roll-out has such an agent: name others, or how many."
        )


def _named(order: Sequence[Changing], agents: Iterable[UUID], names: Mapping[UUID, str]) -> list[Changing]:
    by_id = {each.agent_id: each for each in order}
    idle = [names.get(agent, str(agent)) for agent in agents if agent not in by_id]
    if idle:
        some = ", ".join(each.name for each in order[:NAMES_SHOWN])
        raise PermanentError(
            f"canary: nothing would change for {', '.join(idle)}, so nothing could be learnt from it: name"
            f" agents that change, such as {some}, or how many."
        )
    return [by_id[agent] for agent in agents]


def stand_in(change: str, waiting: Iterable[_Changed]) -> _Changed | None:
    """Another agent that gets this change, for one of the first ring that is gone; None if there is none."""
    return next((each for each in waiting if each.change == change), None)


def restarts(rings: Sequence[Sequence[Changing]], restarting: Iterable[UUID]) -> dict[UUID, int]:
    """How often each of the gateways that restart with a config write will do so: once for each ring in which
    an entry of theirs changes."""
    counted = dict.fromkeys(restarting, 0)
    for ring in rings:
        for gateway in {each.gateway_id for each in ring if each.entry} & counted.keys():
            counted[gateway] += 1
    return counted
