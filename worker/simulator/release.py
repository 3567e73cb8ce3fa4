"""What sets one OpenClaw release apart from another, as data (gateway.md 1, 3, 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

READ, WRITE, ADMIN = "operator.read", "operator.write", "operator.admin"
PAIRING = "operator.pairing"

_SHARED_METHODS = [
    "health",
    "config.get",
    "config.patch",
    "agents.list",
    "agents.create",
    "agents.update",
    "agents.delete",
    "agents.files.list",
    "agents.files.get",
    "agents.files.set",
    "sessions.list",
    "sessions.patch",
    "sessions.reset",
    "sessions.delete",
    "device.pair.list",
    "device.pair.approve",
    "cron.list",
    "chat.history",
    "chat.send",
]

_TOP_LEVEL = frozenset(
    [
        "$schema",
        "meta",
        "env",
        "wizard",
        "diagnostics",
        "logging",
        "update",
        "browser",
        "ui",
        "auth",
        "models",
        "nodeHost",
        "agents",
        "tools",
        "bindings",
        "broadcast",
        "audio",
        "messages",
        "commands",
        "approvals",
        "session",
        "cron",
        "hooks",
        "web",
        "channels",
        "discovery",
        "canvasHost",
        "talk",
        "gateway",
        "memory",
        "skills",
        "plugins",
    ]
)
_ENTRY = frozenset(
    [
        "default",
        "name",
        "workspace",
        "agentDir",
        "model",
        "skills",
        "memorySearch",
        "humanDelay",
        "heartbeat",
        "identity",
        "groupChat",
        "subagents",
        "sandbox",
        "tools",
    ]
)
_HEARTBEAT = frozenset(
    ["every", "activeHours", "model", "session", "target", "to", "accountId", "prompt", "ackMaxChars"],
)


@dataclass(frozen=True, slots=True)
class ConfigKeys:
    """The keys that a release's config takes; any other is "Unrecognized" (gateway.md 4)."""

    top_level: frozenset[str]
    agents: frozenset[str]
    entry: frozenset[str]
    heartbeat: frozenset[str]
    channel_defaults: frozenset[str]
    visibility: str
    """The key of the channels' heartbeat visibility below ``channels.defaults``."""


@dataclass(frozen=True, slots=True)
class Release:
    """One release. Names are OpenClaw's; sizes in bytes, times in milliseconds."""

    name: str
    reported_version: str
    protocol: int
    methods: frozenset[str]
    keys: ConfigKeys
    accepted_files: tuple[str, ...]
    listed_files: tuple[str, ...]
    default_files: tuple[str, ...]
    scopes: Mapping[str, str | None]
    """The scope that a method needs where it is not operator.admin; None: none at all."""
    config_defaults: Mapping[str, Any]
    max_payload: int
    max_buffered: int
    roster_is_map: bool
    """``agents.entries`` (a map, merged by a patch) rather than ``agents.list`` (replaced whole)."""
    restarts_on_patch: bool
    loses_concurrent_writes: bool
    patch_limit: int | None
    """config.patch calls in 60 s for one device, refused ones included."""
    explains_errors: bool
    """Handshake and scope errors carry ``details`` with a code of their own."""
    trusts_backend_only: bool
    """Without a device, scopes are granted to modes backend and cli alone, and an Origin is refused."""
    hashes_files: bool
    heartbeat_scratch: bool
    keeps_main_sessions: bool
    """sessions.delete refuses a ``:main`` key."""
    runs_default_agent_only: bool
    """A run of any other agent fails before it reads a word (gateway.md 3)."""
    signature_skew_ms: int

    def scope_for(self, method: str) -> str | None:
        """The scope a caller needs for ``method``, known or not."""
        return self.scopes.get(method, ADMIN)


_READ_METHODS = ["agents.list", "sessions.list", "chat.history", "cron.list"]

OLD = Release(
    name="2026.2.12",
    reported_version="dev",
    protocol=3,
    methods=frozenset(_SHARED_METHODS),
    keys=ConfigKeys(
        top_level=_TOP_LEVEL,
        agents=frozenset({"defaults", "list"}),
        entry=_ENTRY | {"id"},
        heartbeat=_HEARTBEAT | {"includeReasoning"},
        channel_defaults=frozenset({"groupPolicy", "heartbeat"}),
        visibility="heartbeat",
    ),
    accepted_files=(
        "AGENTS.md",
        "SOUL.md",
        "TOOLS.md",
        "IDENTITY.md",
        "USER.md",
        "HEARTBEAT.md",
        "BOOTSTRAP.md",
        "MEMORY.md",
        "memory.md",
    ),
    listed_files=(
        "AGENTS.md",
        "SOUL.md",
        "TOOLS.md",
        "IDENTITY.md",
        "USER.md",
        "HEARTBEAT.md",
        "BOOTSTRAP.md",
        "MEMORY.md",
    ),
    default_files=(
        "AGENTS.md",
        "SOUL.md",
        "TOOLS.md",
        "IDENTITY.md",
        "USER.md",
        "HEARTBEAT.md",
        "BOOTSTRAP.md",
    ),
    scopes={
        "health": READ,
        **dict.fromkeys(_READ_METHODS, READ),
        "chat.send": WRITE,
        "device.pair.list": PAIRING,
        "device.pair.approve": PAIRING,
    },
    config_defaults={
        "commands": {"native": "auto", "nativeSkills": "auto"},
        "agents": {"defaults": {"maxConcurrent": 4, "subagents": {"maxConcurrent": 8}}},
        "messages": {"ackReactionScope": "group-mentions"},
    },
    max_payload=8 * 1024 * 1024,
    max_buffered=16 * 1024 * 1024,
    roster_is_map=False,
    restarts_on_patch=True,
    loses_concurrent_writes=True,
    patch_limit=None,
    explains_errors=False,
    trusts_backend_only=False,
    hashes_files=False,
    heartbeat_scratch=False,
    keeps_main_sessions=False,
    runs_default_agent_only=True,
    signature_skew_ms=600_000,
)

NEW = Release(
    name="2026.9.6",
    reported_version="2026.9.6",
    protocol=4,
    methods=frozenset(
        [*_SHARED_METHODS, "agents.workspace.list", "cron.scratch.get", "cron.scratch.set"],
    ),
    keys=ConfigKeys(
        top_level=_TOP_LEVEL,
        agents=frozenset({"defaults", "entries", "ownership"}),
        entry=_ENTRY,
        heartbeat=_HEARTBEAT,
        channel_defaults=frozenset({"groupPolicy", "heartbeatVisibility"}),
        visibility="heartbeatVisibility",
    ),
    accepted_files=("AGENTS.md", "SOUL.md", "IDENTITY.md", "USER.md", "BOOTSTRAP.md", "MEMORY.md"),
    listed_files=("AGENTS.md", "SOUL.md", "USER.md", "BOOTSTRAP.md", "MEMORY.md"),
    default_files=("AGENTS.md", "SOUL.md", "IDENTITY.md", "USER.md", "BOOTSTRAP.md"),
    scopes={
        "health": None,
        "config.get": READ,
        "agents.files.list": READ,
        "agents.files.get": READ,
        "agents.workspace.list": READ,
        **dict.fromkeys(_READ_METHODS, READ),
        "chat.send": WRITE,
        "sessions.patch": WRITE,
        "device.pair.list": PAIRING,
        "device.pair.approve": PAIRING,
    },
    config_defaults={
        "agents": {
            "defaults": {
                "maxConcurrent": 8,
                "subagents": {"maxConcurrent": 8, "archiveAfterMinutes": 60},
                "compaction": {"mode": "safeguard"},
            }
        },
        "commands": {"native": "auto", "nativeSkills": "auto", "restart": True},
        "messages": {"ackReactionScope": "group-mentions"},
    },
    max_payload=26_214_400,
    max_buffered=52_428_800,
    roster_is_map=True,
    restarts_on_patch=False,
    loses_concurrent_writes=False,
    patch_limit=30,
    explains_errors=True,
    trusts_backend_only=True,
    hashes_files=True,
    heartbeat_scratch=True,
    keeps_main_sessions=True,
    runs_default_agent_only=False,
    signature_skew_ms=120_000,
)

RELEASES: dict[str, Release] = {release.name: release for release in (OLD, NEW)}
