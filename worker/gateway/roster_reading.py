"""Reads a gateway's roster and config, with included files in place; no other code does.

``parsed`` of config.get is the root file alone, without its ``$include``s. It is empty or null if the file is
invalid, while the gateway keeps running (gateways.md 12). So the roster must not be taken from it directly.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from worker.errors import PermanentError
from worker.gateway.agent_ids import IMPLICIT_AGENT, canonical_id
from worker.gateway.dialect import Dialect
from worker.gateway.includes import Include, Keys, includes_of, merged_document
from worker.gateway.roster_plan import RosterEntry, RosterPlan, implied_ids, plan_roster, roster_entries

_NAMING_BLOCKS = ("heartbeat", "systemAgent")

Fetch = Callable[[], Mapping[str, Any]]
"""Makes one call and returns its payload."""

OURS = re.compile(r"(?:mc|lead|mc-gateway)-(?P<key>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
"""Matches ids that only Mission Control's agents have (rules.md 1, 2)."""
VISIBILITY_STAYS = (
    "The heartbeat visibility of the channels was left as it is: openclaw.json has it from files that"
    " OpenClaw does not write. Set channels.defaults.heartbeatVisibility there."
)
_ATTEMPTS, _PAUSE_S = 3, 0.5
"""How often to read, and the first pause in seconds: an owner's save or a reload takes a moment."""
_LONGEST_WARNING = 2000
_MISSING = re.compile(r'Missing env var "([^"]+)"')


class RosterUnknownError(PermanentError):
    """It is unknown which agents the gateway has, which is not the same as having none."""

    reason_code = "gateway_refused"


@dataclass(frozen=True)
class LiveRoster:
    """What a gateway's config says, with all its files merged.

    ``answer``: config.get's answer. ``document``: the config as its owner wrote it, with included parts in
    place; parts of it may be sent back. ``includes``: every ``$include`` of the root file.
    """

    dialect: Dialect
    answer: Mapping[str, Any]
    document: Mapping[str, Any]
    includes: tuple[Include, ...]

    @classmethod
    def of(
        cls, dialect: Dialect, answer: Mapping[str, Any], listed: Mapping[str, Any] | None = None
    ) -> LiveRoster:
        """Read config.get's ``answer``, and check it against ``listed``, agents.list's answer, if given.

        Raises RosterUnknownError, or PermanentError if the config is of another family.
        """
        dialect.confirm(answer)
        parsed, config = answer.get("parsed"), answer.get("config")
        if answer.get("valid") is False or not isinstance(parsed, Mapping):
            raise RosterUnknownError(_invalid(answer))
        includes = includes_of(parsed)
        if includes and not isinstance(config, Mapping):
            raise RosterUnknownError(
                "The gateway's openclaw.json includes other files, and config.get does not show what is in"
                " them, so its roster is unknown and nothing was changed: update OpenClaw there."
            )
        document = merged_document(parsed, config, _missing_variables(answer)) if includes else parsed
        _require_shape(dialect, document)
        roster = cls(dialect, answer, document, includes)
        roster._require_agreement(listed)
        return roster

    @cached_property
    def entries(self) -> Mapping[str, Mapping[str, Any]]:
        """The roster's entries by the ids that the gateway uses."""
        return roster_entries(self.dialect, self.document)

    @cached_property
    def present(self) -> frozenset[str]:
        """The ids in the roster; the implicit agent's only if the config names it."""
        return frozenset(self.entries)

    @property
    def known(self) -> frozenset[str]:
        """The ids of the gateway's agents: those in the roster, or the implicit one where it has no
        entries."""
        return self.present | implied_ids(self.present)

    @property
    def ours(self) -> frozenset[str]:
        """The ids in the roster that only Mission Control's agents have (rules.md 1, 2)."""
        return frozenset(key for key in self.present if OURS.fullmatch(key))

    def defaults_naming(self, openclaw_id: str) -> Iterator[tuple[str, list[str]]]:
        """The blocks of agents.defaults that name the agent, each with its other keys.

        From 2026.8 on, agents.delete drops such a block as a whole (measured on 2026.9.6).
        """
        agents = self.document.get("agents")
        defaults = agents.get("defaults") if isinstance(agents, Mapping) else None
        if self.dialect.roster != "entries" or not isinstance(defaults, Mapping):
            return
        for key, block in defaults.items():
            named = block.get("agentId") if isinstance(block, Mapping) else None
            if key in _NAMING_BLOCKS and named is not None and canonical_id(named) == openclaw_id:
                yield f"agents.defaults.{key}", sorted(map(str, block.keys() - {"agentId"}))

    @property
    def preserves_includes(self) -> bool:
        """Whether the release preserves ``$include``s.

        2026.7.1 and later, whose config.get has ``sourceConfig``, write into the file that owns what changes,
        or refuse. Earlier releases write everything into one file.
        """
        return "sourceConfig" in self.answer

    def writes_into(self, include: Include) -> bool:
        """Whether the release writes into the included files: 2026.9.6 does, 2026.7.1 refuses (measured).

        It does so only for a single file with nothing beside its ``$include``, which is not the whole config.
        """
        into_files = self.preserves_includes and self.dialect.writes_into_includes
        return into_files and include.alone and bool(include.keys)

    @property
    def writes_visibility(self) -> bool:
        """Whether the release can write the channels' heartbeat visibility where this config keeps it."""
        if not self.preserves_includes:
            return True
        ours = [include for include in self.includes if include.touches("channels", "defaults")]
        return all(include.alone and include.keys for include in ours)

    def plan(
        self, wanted: Sequence[RosterEntry], *, visibility: bool = True, keep_others_beating: bool = False
    ) -> RosterPlan:
        """Plan the changes after which the roster holds every wanted entry that can be written.

        ``visibility``: also plan the channels' heartbeat visibility. ``keep_others_beating``: as for
        `plan_roster`.
        """
        plan = plan_roster(self.dialect, self.document, wanted, keep_others_beating=keep_others_beating)
        if plan.document is None or (visibility and self.writes_visibility):
            return plan
        rest = {key: value for key, value in plan.document.items() if key != "channels"}
        return replace(plan, document=rest or None)

    def next_patch(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """The part of a plan's ``document`` to send now.

        That is all of it, unless the config has includes and the release preserves them. It then refuses a
        patch that spans two files, so the part for one file is returned.
        """
        if not self.preserves_includes or not self.includes:
            return document
        if "agents" not in document:
            return document
        agents = document["agents"]
        if "ownership" in agents and any(one.keys[:2] == ("agents", "entries") for one in self.includes):
            return {"agents": {"ownership": agents["ownership"]}}
        return {"agents": agents}

    def unwritten_include(self, document: Mapping[str, Any]) -> str | None:
        """The included part that the next patch would change and the release cannot write; None if none.

        2026.7.1 writes into no included file, 2026.9.6 into one that is included alone (measured).
        """
        if not self.preserves_includes:
            return None
        paths = list(_leaves_of(self.next_patch(document)))
        for include in self.includes:
            written = self.writes_into(include)
            if not written and any(path[: len(include.keys)] == include.keys for path in paths):
                return include.path
        return None

    def _require_agreement(self, listed: Mapping[str, Any] | None) -> None:
        if listed is None or not self.entries:
            return
        agents = listed.get("agents")
        if not isinstance(agents, list):
            raise RosterUnknownError(
                "The gateway's openclaw.json includes other files, and what it answers to agents.list has no"
                " list of agents, so its roster is unknown and nothing was changed: see its log."
            )
        # agents.list has the default agent and the main session's even if the config does not name them.
        implied = {IMPLICIT_AGENT, *map(str, (listed.get("defaultId"), listed.get("mainKey")))}
        running = {
            canonical_id(agent["id"]) for agent in agents if isinstance(agent, Mapping) and "id" in agent
        }
        strangers = sorted(running - self.present - implied)
        if strangers:
            raise RosterUnknownError(
                f"The gateway runs {', '.join(strangers)}, which neither openclaw.json nor a file that it"
                " includes names, so its roster is unknown and nothing was changed: see `openclaw doctor` on"
                " its machine, and restart the gateway there if it has not loaded its config."
            )


def read_roster(
    dialect: Dialect, get_config: Fetch, list_agents: Fetch, pause: Callable[[float], object] = time.sleep
) -> LiveRoster:
    """Read the gateway's config, and its list of agents if the config has includes.

    A running gateway may not have loaded its includes yet, so an unknown roster is read again before it is
    reported. Raises RosterUnknownError, and what the calls raise.
    """
    for attempt in range(_ATTEMPTS):
        answer = get_config()
        try:
            includes = includes_of(answer.get("parsed"))
            return LiveRoster.of(dialect, answer, list_agents() if includes else None)
        except RosterUnknownError:
            if attempt == _ATTEMPTS - 1:
                raise
        pause(_PAUSE_S * (attempt + 1))
    raise AssertionError("unreachable")


def _require_shape(dialect: Dialect, document: Mapping[str, Any]) -> None:
    """Raise RosterUnknownError for a roster of the wrong type, which must not be taken for an empty one."""
    place, held = "agents", document.get("agents")
    if isinstance(held, Mapping):
        place, held = f"agents.{dialect.roster}", held.get(dialect.roster)
        wanted = list if dialect.roster == "list" else Mapping
        if isinstance(held, wanted):
            entries = held.items() if isinstance(held, Mapping) else enumerate(held)
            wrong = (key for key, entry in entries if not isinstance(entry, Mapping))
            if (key := next(wrong, None)) is None:
                return
            place = f"{place}[{key}]"
    if held is not None:
        raise RosterUnknownError(
            f"{place} of the gateway's openclaw.json is not what OpenClaw keeps there, so its roster is"
            " unknown and nothing was changed: correct the file (`openclaw doctor` on its machine says what"
            " is wrong) and ask again."
        )


def _leaves_of(patch: Mapping[str, Any], keys: Keys = ()) -> Iterator[Keys]:
    """The paths of all values that a patch writes."""
    for key, value in patch.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves_of(value, (*keys, key))
        else:
            yield (*keys, key)


def _invalid(answer: Mapping[str, Any]) -> str:
    issues = answer.get("issues")
    details = [
        f"{issue['path']}: {issue.get('message')}" if issue.get("path") else str(issue.get("message"))
        for issue in (issues if isinstance(issues, list) else [])
        if isinstance(issue, Mapping)
    ]
    what = f" ({'; '.join(details)[:300]})" if details else ""
    return (
        f"The gateway's openclaw.json is invalid{what}, so its roster is unknown and nothing was changed:"
        " correct the file (`openclaw doctor` on its machine says what is wrong) and ask again."
    )


def _missing_variables(answer: Mapping[str, Any]) -> frozenset[str]:
    """Variables without a value. Later releases warn of them and show the reference itself."""
    warnings = answer.get("warnings")
    listed = warnings if isinstance(warnings, list) else []
    texts = [str(w.get("message")) for w in listed if isinstance(w, Mapping)]
    return frozenset(name for text in texts for name in _MISSING.findall(text[:_LONGEST_WARNING]))
