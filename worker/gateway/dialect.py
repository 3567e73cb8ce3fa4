"""Describes what each OpenClaw release understands; no other module distinguishes releases.

See decisions.md D3 and gateways.md 8.

There are two known families. Up to 2026.7 the roster is a list, and an agent's tools and heartbeat text are
files. From 2026.8 on it is a map, credentials are in a section of AGENTS.md, and the heartbeat text is in the
scratch of the agent's heartbeat automation. The methods in a gateway's hello select its dialect, the shape of
its config confirms the choice, and its later answers correct it. The version counts only where the methods do
not decide: 2026.2.12 and 2026.2.26 both call themselves "dev", and a later release may do so too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from worker.errors import PermanentError

_COMMON_FILES = frozenset({"AGENTS.md", "SOUL.md", "IDENTITY.md", "USER.md", "BOOTSTRAP.md", "MEMORY.md"})
_LIST_FAMILY_FILES = _COMMON_FILES | {"TOOLS.md", "HEARTBEAT.md"}


@dataclass(frozen=True)
class Dialect:
    """What one gateway understands, stores and does on its own.

    ``files``: names that agents.files.set accepts. ``credentials_in`` / ``heartbeat_in``: where the token and
    the heartbeat text are stored. ``refused_heartbeat_keys``: keys that must be left out of a heartbeat
    block. ``merges_lists``: a patched list is merged by id, so a key is only unset by an explicit null.
    ``shows_wake_keys``: chat.history tells whether a message with a given idempotencyKey arrived.
    ``drops_bootstrap``: the gateway deletes BOOTSTRAP.md before an agent with a workspace of its own first
    reads it (2026.7.1 and later).

    ``writes_variables``: any config write, including the gateway's own, replaces each ``${VAR}`` in
    openclaw.json with its value (measured on 2026.2.12, where config.get does not show which secrets are
    variables). ``restart_delay_ms``: the delay that a patch asks for. With 0, a 2026.2 gateway restarts once
    and at once; its default of 2000 restarts it twice if channels change too (measured on 2026.2.12).
    ``latest_restart_s``: how long after a patch a restart may still come if the answer that would announce it
    was lost (gateways.md 4).

    ``keeps_files_per_session``: an agent keeps using its files as they were when its session began (seen on
    2026.2.26 and 2026.3.13, which cache them until the session ends; gone by 2026.9.6). ``fences_deleted``: a
    deleted id that a config write brings back gets no heartbeat automation until agents.create lifts the
    fence (2026.9.6). ``defaults_beat_all``: agents.defaults.heartbeat applies to all agents, not only to the
    default one (2026.7.1 and later).

    ``removes_from_memory``: agents.delete writes the config as the gateway last loaded it, which loses
    whatever was saved in the second before, including another removal (measured on 2026.2.26; on 2026.3.13 it
    loses only what the owner saved). ``leaves_distant_folders``: agents.delete removes only folders below the
    home or temporary folder of the gateway's account, and does not report the others (2026.7.1).
    ``deletes_sessions``: agents.delete deletes the agent's sessions too. ``defaults_name_one``:
    agents.defaults may name the one agent that runs heartbeats. ``writes_into_includes``: a patch is written
    into the included file that holds what changes; 2026.7.1 refuses such a patch, and earlier releases write
    everything into openclaw.json. ``needs_replace_paths``: a patch that shortens or removes a list must name
    it. ``fences_writes``: agents.files.set takes the hash that the file should still have (seen on 2026.9.6).
    ``looks_up_schema``: config.schema.lookup describes every setting of an agent, where 2026.3.13 leaves out
    alternatives and the whole config.schema must be read (measured on 2026.9.6, where that has 2.2 MB).

    ``runs_in``: what tells how an agent's last run began and ended: "list", the entries of sessions.list;
    "history", the last answer in chat.history; None where nothing does (2026.2.12, which runs its default
    agent alone).
    """

    roster: Literal["list", "entries"]
    version: str
    files: frozenset[str]
    credentials_in: Literal["TOOLS.md", "AGENTS.md"]
    heartbeat_in: Literal["HEARTBEAT.md", "scratch"]
    visibility_key: Literal["heartbeat", "heartbeatVisibility"]
    refused_heartbeat_keys: frozenset[str]
    merges_lists: bool
    lists_workspace: bool
    has_scratch: bool
    shows_wake_keys: bool
    drops_bootstrap: bool
    keeps_files_per_session: bool
    latest_restart_s: float
    writes_variables: bool
    fences_deleted: bool = False
    defaults_beat_all: bool = False
    removes_from_memory: bool = False
    leaves_distant_folders: bool = False
    deletes_sessions: bool = False
    defaults_name_one: bool = False
    writes_into_includes: bool = False
    needs_replace_paths: bool = False
    fences_writes: bool = False
    looks_up_schema: bool = False
    restart_delay_ms: int = 0
    runs_in: Literal["list", "history"] | None = None

    @property
    def restarts(self) -> bool:
        """Whether a config write restarts the gateway, or may."""
        return self.latest_restart_s > 0

    @classmethod
    def from_hello(cls, version: str, methods: Collection[str]) -> Dialect:
        """The dialect of a gateway that reports ``version`` and ``methods`` in its hello."""
        scratch = "cron.scratch.set" in methods
        if scratch and "agents.workspace.list" in methods:
            return cls(
                roster="entries",
                version=version,
                files=_COMMON_FILES,
                credentials_in="AGENTS.md",
                heartbeat_in="scratch",
                visibility_key="heartbeatVisibility",
                refused_heartbeat_keys=frozenset({"includeReasoning"}),
                merges_lists=False,
                lists_workspace=True,
                has_scratch=True,
                shows_wake_keys=True,
                drops_bootstrap=True,
                keeps_files_per_session=False,
                latest_restart_s=0.0,
                writes_variables=False,
                fences_deleted=True,
                defaults_beat_all=True,
                deletes_sessions=True,
                defaults_name_one=True,
                writes_into_includes=True,
                needs_replace_paths=True,
                fences_writes=True,
                looks_up_schema="config.schema.lookup" in methods,
                runs_in="list",
            )
        # The ``secrets`` methods appeared in the release that also merges lists, keeps variables and delays
        # restarts. It still calls itself "dev" (2026.2.26).
        since_february_26 = "secrets.reload" in methods or _release(version) >= (2026, 2, 26)
        return cls(
            roster="list",
            version=version,
            files=_LIST_FAMILY_FILES,
            credentials_in="TOOLS.md",
            heartbeat_in="HEARTBEAT.md",
            visibility_key="heartbeat",
            refused_heartbeat_keys=frozenset(),
            merges_lists=since_february_26,
            lists_workspace=False,
            has_scratch=scratch,
            shows_wake_keys=False,
            drops_bootstrap="agents.workspace.list" in methods,
            keeps_files_per_session=since_february_26,
            latest_restart_s=35.0 if since_february_26 else 3.0,
            writes_variables=not since_february_26,
            defaults_beat_all="agents.workspace.list" in methods,
            leaves_distant_folders="agents.workspace.list" in methods,
            removes_from_memory=since_february_26 and "agents.workspace.list" not in methods,
            runs_in="history" if since_february_26 else None,
        )

    @property
    def family(self) -> str:
        """The family's name, for messages."""
        return f"agents.{self.roster}"

    def confirm(self, config: Mapping[str, Any]) -> None:
        """Raise PermanentError if a config.get answer has its roster in the other family's place."""
        for document in (config.get("config"), config.get("parsed")):
            agents = document.get("agents") if isinstance(document, Mapping) else None
            if not isinstance(agents, Mapping):
                continue
            shapes = {
                "list": isinstance(agents.get("list"), list),
                "entries": isinstance(agents.get("entries"), Mapping),
            }
            if any(shapes.values()) and not shapes[self.roster]:
                raise PermanentError(
                    f"The gateway (OpenClaw {self.version}) announces itself as {self.family},"
                    f" but keeps its agents elsewhere in its config: this release is not known yet."
                )

    def with_files(self, names: Collection[str]) -> Dialect:
        """This dialect, for a gateway that was found to take the files ``names`` too."""
        return replace(self, files=self.files | set(names)) if names else self

    def without_file(self, name: str) -> Dialect:
        """This dialect, corrected for a gateway that does not support the file ``name``."""
        changes: dict[str, Any] = {"files": self.files - {name}}
        if name == self.credentials_in:
            changes["credentials_in"] = "AGENTS.md"
        if name == self.heartbeat_in and self.has_scratch:
            changes["heartbeat_in"] = "scratch"
        return replace(self, **changes)


def _release(version: str) -> tuple[int, ...]:
    """``2026.3.13-beta.1`` as (2026, 3, 13); (0,) for ``dev``, as the oldest releases call themselves."""
    match = re.match(r"(\d{4})\.(\d+)\.(\d+)", version)
    return tuple(int(part) for part in match.groups()) if match else (0,)
