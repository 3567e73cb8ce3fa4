"""The differences between OpenClaw releases (gateways.md 1, 3, 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

READ, WRITE, ADMIN = "operator.read", "operator.write", "operator.admin"
PAIRING = "operator.pairing"
MODES = frozenset(["webchat", "cli", "ui", "backend", "node", "probe", "test"])
"""The modes that a client may have."""


@dataclass(frozen=True, slots=True)
class ConfigKeys:
    """The keys that a release's config may have; any other is "Unrecognized" (gateways.md 4)."""

    top_level: frozenset[str]
    agents: frozenset[str]
    entry: frozenset[str]
    heartbeat: frozenset[str]
    channel_defaults: frozenset[str]
    visibility: str
    """The key of the channels' heartbeat visibility below ``channels.defaults``."""


@dataclass(frozen=True, slots=True)
class Release:
    """One release. Names are OpenClaw's; sizes are in bytes, times in milliseconds.

    The text below a flag says what the release does if the flag is true.
    """

    name: str
    reported_version: str
    protocol: int
    methods: frozenset[str]
    keys: ConfigKeys
    accepted_files: tuple[str, ...]
    listed_files: tuple[str, ...]
    default_files: tuple[str, ...]
    scopes: Mapping[str, str | None]
    """The scope that a method needs if it is not operator.admin; None: no scope."""
    config_defaults: Mapping[str, Any]
    max_payload: int
    max_buffered: int
    roster_is_map: bool
    """``agents.entries`` (a map, merged by a patch) rather than ``agents.list``."""
    merges_lists: bool
    """A patched list of objects with ids is merged by id instead of replaced."""
    restarts_on_patch: bool
    spaces_restarts: bool
    """A restart by a patch waits until 30 s after the last one, and at most one waits."""
    writes_out_variables: bool
    """Any config write replaces each ``${VAR}`` in the file with its value, except in what a patch sends."""
    needs_variables: bool
    """A gateway ends, and does not start again, if its config names a variable that is not set."""
    shows_references: bool
    """config.get hides no secret that is given as ``${VAR}``."""
    loses_concurrent_writes: bool
    runs_from_memory: bool
    """agents.* read and write the config as the gateway last loaded it: what was saved in the half second
    before is lost, including a removal of its own (2026.2.26)."""
    refuses_concurrent_file_writes: bool
    """A file that is being written is "unsafe" for any other writer."""
    plain_files_only: bool
    """A link, a folder, a file with two names or a read-only one is "unsafe" too, in the same words."""
    patch_limit: int | None
    """How many config.patch calls one device may make in 60 s, refused ones included."""
    explains_errors: bool
    """Protocol and scope errors carry ``details`` with a code of their own; a hello names its boot."""
    explains_admission: bool
    """Refused tokens and devices carry ``details`` with a code of their own."""
    advises_retries: bool
    """The refusal of a token says what to try next, and that of an origin has ``details``."""
    names_issues: bool
    """The message about an invalid config lists its issues, which are otherwise only in the details."""
    shows_auth: Literal["always", "with device", "never"]
    """Whether a hello contains role and scopes."""
    trusted_modes: frozenset[str]
    """Client modes that are granted scopes without a device."""
    pairs_local_backends: bool
    """A backend's device on the gateway's own machine is listed as paired; otherwise it needs no pairing."""
    refuses_origin: bool
    refuses_while_closing: bool
    """A gateway that stops answers upgrades with HTTP 503 before its port refuses them."""
    hashes_files: bool
    heartbeat_scratch: bool
    fences_deleted: bool
    """A deleted id that a config write brings back has no heartbeat automation, and each change to it causes
    a restart, until agents.create claims it."""
    may_be_read_only: bool
    """OPENCLAW_CONFIG_READONLY=1 in a gateway's environment makes it refuse every config write."""
    longest_label: int
    """How many characters a session's label may have."""
    keeps_main_sessions: bool
    """sessions.delete refuses a ``:main`` key."""
    runs_default_agent_only: bool
    """Only the default agent's runs work; any other run fails at once (gateways.md 3)."""
    reports_failed_runs: bool
    """A run that fails without a model ends as ``error``, not as a reply that says so."""
    keys_history: bool
    """chat.history shows the idempotency key of a message."""
    signature_skew_ms: int

    def scope_for(self, method: str) -> str | None:
        """The scope a caller needs for ``method``, known or not."""
        return self.scopes.get(method, ADMIN)
