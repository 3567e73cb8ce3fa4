"""What gateway.md measured of each release, as the conformance suite expects it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Expected:
    """Facts of one release. Sizes in bytes, times in seconds."""

    protocol: int
    max_payload: int
    roster_is_map: bool
    restarts_on_patch: bool
    refused_files: tuple[str, ...]
    listed_files: tuple[str, ...]
    health_needs_read: bool
    config_get_scope: str
    explains_errors: bool
    unknown_agent_in_files: str
    patches_a_minute: int | None


EXPECTED = {
    "2026.2.12": Expected(
        protocol=3,
        max_payload=8_388_608,
        roster_is_map=False,
        restarts_on_patch=True,
        refused_files=("TASK_SOUL.md", "SELF.md", "AUTONOMY.md", "BOOT.md", "agents.md", "../x"),
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
        health_needs_read=True,
        config_get_scope="operator.admin",
        explains_errors=False,
        unknown_agent_in_files="unknown agent id",
        patches_a_minute=None,
    ),
    "2026.9.6": Expected(
        protocol=4,
        max_payload=26_214_400,
        roster_is_map=True,
        restarts_on_patch=False,
        refused_files=(
            "TOOLS.md",
            "HEARTBEAT.md",
            "TASK_SOUL.md",
            "SELF.md",
            "AUTONOMY.md",
            "BOOT.md",
            "agents.md",
            "../x",
        ),
        listed_files=("AGENTS.md", "SOUL.md", "USER.md", "BOOTSTRAP.md", "MEMORY.md"),
        health_needs_read=False,
        config_get_scope="operator.read",
        explains_errors=True,
        unknown_agent_in_files='agent "nobody" not found',
        patches_a_minute=30,
    ),
}
