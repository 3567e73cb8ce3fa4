"""Reads and writes the gateway's config; the older releases let several writers race (gateways.md 4)."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from worker.lab.simulator import document, rules
from worker.lab.simulator.includes import (
    has_includes,
    include_owned,
    owner_of_change,
    value_at,
    with_included,
)
from worker.lab.simulator.journal import Journal
from worker.lab.simulator.refusal import JSON, Refusal
from worker.lab.simulator.release import Release
from worker.lab.simulator.roster import roster_of
from worker.lab.simulator.timings import Timings
from worker.lab.simulator.workspaces import with_home

_READ_ONLY = (
    "ConfigReadOnlyError: Config is externally managed (`OPENCLAW_CONFIG_READONLY=1`), so OpenClaw treats"
    " openclaw.json as immutable.\nConfig path: {path}\nEdit the config in your external deployment source,"
    " then redeploy or restart OpenClaw as needed."
)


@dataclass(frozen=True, slots=True)
class Written:
    """The outcome of a write: the config as stored, and the dotted paths that differ."""

    config: JSON
    changed: list[str]


class Config:
    """The ``openclaw.json`` of one gateway. It is read from disk each time, so manual edits take effect.

    ``environment`` holds the values of the variables that it names.
    """

    def __init__(
        self,
        path: Path,
        release: Release,
        timings: Timings,
        journal: Journal,
        *,
        token: str,
        main_workspace: str,
        environment: Mapping[str, str],
        on_write: Callable[[Written], Awaitable[None]],
    ) -> None:
        self.path = path
        self.roster = roster_of(release)
        self._release = release
        self._timings = timings
        self._journal = journal
        self._hash_key = hashlib.sha256(token.encode()).digest() if release.roster_is_map else None
        self._main_workspace = main_workspace
        self._environment = environment
        self._on_write = on_write
        self._lock = asyncio.Lock()
        self._last: document.Snapshot | None = None
        self._last_good: document.Snapshot | None = None
        self._in_memory: document.Snapshot | None = None

    def agents(self) -> dict[str, JSON]:
        """The roster's entries as the gateway runs them, by agent id."""
        return self.roster.agents(self._running())

    def effective(self) -> JSON:
        """The config as the gateway runs it: variables resolved, defaults filled in."""
        return self._effective(self._running())

    def can_be_started_with(self) -> bool:
        """Whether a gateway of this release starts with the file as it is now."""
        return self._fault(self._read()) is None

    def get(self) -> JSON:
        """The answer to ``config.get``."""
        snapshot = self._read()
        issues = self._issues(snapshot)
        if issues:
            return self._invalid(snapshot, issues)
        shown = self._release.shows_references
        answer: JSON = {
            "path": str(self.path),
            "exists": True,
            "raw": document.redacted_text(snapshot, shows_references=shown),
            "parsed": document.redacted(snapshot.parsed, shows_references=shown),
            "valid": True,
            "config": document.redacted(self._effective(snapshot.source)),
            "hash": snapshot.digest(self._hash_key),
            "issues": [],
            "warnings": [],
            "legacyIssues": [],
        }
        if self._release.roster_is_map:
            answer |= {
                "sourceConfig": answer["parsed"],
                "resolved": answer["parsed"],
                "runtimeConfig": answer["config"],
                "configRevisionHash": answer["hash"],
                "appliedConfigHash": answer["hash"],
            }
        return answer

    def _invalid(self, snapshot: document.Snapshot, issues: list[JSON]) -> JSON:
        """config.get's answer for files that make no config; only the oldest release shows what they hold."""
        shows = self._release.writes_out_variables
        answer: JSON = {
            "path": str(self.path),
            "exists": True,
            "raw": document.redacted_text(snapshot),
            "parsed": document.redacted(snapshot.parsed) if shows else None,
            "valid": False,
            "config": document.redacted(snapshot.source) if shows else {},
            "hash": snapshot.digest(self._hash_key),
            "issues": issues,
            "warnings": [],
            "legacyIssues": [],
        }
        if self._release.roster_is_map:
            answer |= {"sourceConfig": {}, "resolved": {}, "runtimeConfig": {}}
        return answer

    def _fault(self, snapshot: document.Snapshot) -> str | None:
        if snapshot.fault is None and self._release.needs_variables:
            unset = document.unset_variables(snapshot.source, self._environment)
            return f'Missing env var "{unset[0]}" referenced in the config' if unset else None
        return snapshot.fault

    def _issues(self, snapshot: document.Snapshot) -> list[JSON]:
        fault = self._fault(snapshot)
        if fault is not None:
            return [{"path": "", "message": fault}]
        found = rules.issues_of(snapshot.source, self._release)
        return [{"path": path, "message": message} for path, message in found]

    def _loaded(self, snapshot: document.Snapshot) -> document.Snapshot:
        """What agents.* go by: the file, or what was loaded of it before it was saved a moment ago."""
        if not self._release.runs_from_memory:
            return snapshot
        age_s = time.time() - self.path.stat().st_mtime
        if self._in_memory is None or age_s >= self._timings.reload_delay_s:
            self._in_memory = snapshot
        return self._in_memory

    def _running(self) -> JSON:
        """What the gateway runs: while the files are invalid, what they said last; the oldest release reads
        them at each call, and then knows of nobody."""
        snapshot = self._loaded(self._read())
        if snapshot is not self._last_good:
            if not self._issues(snapshot):
                self._last_good = snapshot
            elif self._release.writes_out_variables:
                return {}
        return self._last_good.source if self._last_good is not None else {}

    def _read(self) -> document.Snapshot:
        self._last = document.read(self.path, self._last)
        return self._last

    async def patch(self, raw: str, base_hash: str | None, replace_paths: Sequence[str] = ()) -> JSON:
        """The answer to ``config.patch`` without ``restart``. Writes nothing if it refuses the patch.

        ``replace_paths``: the lists of which the patch may take entries away; only newer releases ask.
        """
        async with self._writing() as snapshot:
            patch = self._checked_patch(raw, base_hash, snapshot)
            writes_all = self._release.writes_out_variables
            before = self._effective(snapshot.source) if writes_all else snapshot.source
            after = document.merged(before, patch, by_id=self._release.merges_lists)
            after = document.restored(after, before)
            changed = document.changed_paths(self._with_main(before), self._with_main(after))
            if not changed and not self._release.restarts_on_patch:
                config = document.redacted(self._effective(snapshot.source))
                return {
                    "ok": True,
                    "noop": True,
                    "changedPaths": [],
                    "path": str(self.path),
                    "config": config,
                }
            if base_hash is None:
                raise Refusal(
                    f"config base hash required for {', '.join(document.leaf_paths(patch))}; "
                    "re-run config.get and retry with baseHash"
                )
            self.roster.settle(before, after, self._main_workspace)
            if self._release.roster_is_map:
                document.require_named(before, after, replace_paths)
            rules.check(after, self._release)
            written = self._write(snapshot, before, after, changed)
        await self._on_write(written)
        return self._patched(written)

    @asynccontextmanager
    async def editing(self) -> AsyncIterator[JSON]:
        """Yield the parsed config to change in place; it is written at the end, unless the block raises."""
        async with self._writing() as snapshot:
            config = document.merged(self._loaded(snapshot).source, {})
            if self._release.writes_out_variables:
                config = self._with_homes(document.with_variables(config, self._environment))
            before = document.merged(config, {})
            yield config
            self._write_out_moved(before, config)
            written = self._write(snapshot, before, config, document.changed_paths(before, config))
        await self._on_write(written)

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[document.Snapshot]:
        """A snapshot that a write may begin from; where the release races, others read it meanwhile."""
        if self._release.may_be_read_only and self._environment.get("OPENCLAW_CONFIG_READONLY") == "1":
            raise Refusal(_READ_ONLY.format(path=self.path), code="UNAVAILABLE")
        if self._release.loses_concurrent_writes:
            snapshot = self._read()
            await asyncio.sleep(self._timings.config_write_s)
            yield snapshot
            return
        async with self._lock:
            await asyncio.sleep(self._timings.config_write_s)
            yield self._read()

    def _checked_patch(self, raw: str, base_hash: str | None, snapshot: document.Snapshot) -> JSON:
        if base_hash is None and self._release.restarts_on_patch:
            raise Refusal("config base hash required; re-run config.get and retry")
        if base_hash is not None and base_hash != snapshot.digest(self._hash_key):
            raise Refusal("config changed since last load; re-run config.get and retry")
        if issues := self._issues(snapshot):
            if not self._release.explains_errors:
                raise Refusal("invalid config; fix before patching")
            told = "; ".join(f"{issue['path'] or '<root>'}: {issue['message']}" for issue in issues)
            raise Refusal(
                f"invalid config: {told}; fix (openclaw doctor) before patching", details={"issues": issues}
            )
        return document.patch_from(raw)

    def require_removable(self, agent_id: str) -> None:
        """Raise `Refusal` for an agent in an included file: 2026.9.6 does not remove such agents
        (measured)."""
        snapshot = self._read()
        if self._release.roster_is_map and has_includes(snapshot.parsed):
            without = document.merged(snapshot.source, {"agents": {"entries": {agent_id: None}}})
            owner = owner_of_change(snapshot.parsed, self.path, snapshot.source, without)
            if owner.keys:
                raise include_owned(owner.keys)

    def _write_out_moved(self, before: JSON, after: JSON) -> None:
        """2026.3.13 finds a variable again by its entry's number in the list, so not in one that moved up."""
        held, now = (value_at(config, ("agents", "list")) for config in (before, after))
        if not (self._release.merges_lists and isinstance(held, list) and isinstance(now, list)):
            return
        for place, entry in enumerate(now):
            if place >= len(held) or entry != held[place]:
                now[place] = document.with_variables(entry, self._environment)

    def _write(self, snapshot: document.Snapshot, before: JSON, config: JSON, changed: list[str]) -> Written:
        if self._release.roster_is_map and has_includes(snapshot.parsed):
            owner = owner_of_change(snapshot.parsed, self.path, before, config)
            if owner.keys:
                document.write(owner.path, value_at(config, owner.keys))
                self._journal.config_written(time.time())
                return Written(config, changed)
            config = with_included(snapshot.parsed, config)
        config.setdefault("meta", {})["lastTouchedVersion"] = self._release.name
        if self._release.restarts_on_patch:
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            config["meta"]["lastTouchedAt"] = now.replace("+00:00", "Z")
        document.write(self.path, config)
        self._journal.config_written(time.time())
        return Written(config, changed)

    def _patched(self, written: Written) -> JSON:
        answer: JSON = {"ok": True, "path": str(self.path), "config": document.redacted(written.config)}
        kind = "config-apply" if self._release.writes_out_variables else "config-patch"
        stats: JSON = {"mode": "config.patch", "root": str(self.path)}
        sentinel: JSON = {"kind": kind, "status": "ok", "ts": int(time.time() * 1000), "stats": stats}
        if self._release.restarts_on_patch:
            path = str(self.path.with_name("restart-sentinel.json"))
            return {**answer, "sentinel": {"path": path, "payload": sentinel}}
        stats["requiresRestart"] = False
        answer |= {"hash": self._read().digest(self._hash_key), "changedPaths": written.changed}
        return {**answer, "sentinel": {"persisted": True, "payload": sentinel}}

    def _effective(self, parsed: JSON) -> JSON:
        resolved = self._with_homes(document.with_variables(parsed, self._environment))
        config = document.merged(self._release.config_defaults, resolved)
        return self._with_main(config)

    def _with_homes(self, config: JSON) -> JSON:
        """The config with the ``~`` of all workspaces resolved, as every release runs it."""
        for agent_id, entry in self.roster.agents(config).items():
            given = entry.get("workspace")
            if isinstance(given, str) and given.startswith("~"):
                self.roster.add(config, agent_id, {**entry, "workspace": with_home(given, self.path.parent)})
        return config

    def _with_main(self, config: JSON) -> JSON:
        """The config with the main agent that an empty map of entries implies."""
        if not self._release.roster_is_map:
            return config
        return (
            document.merged({"agents": {"entries": {"main": {}}}}, config)
            if not _has_entries(config)
            else config
        )


def _has_entries(config: JSON) -> bool:
    return bool(config.get("agents", {}).get("entries"))
