"""What was measured of each release (gateways.md 1-8), as the conformance suite expects it."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Expected:
    """Facts of one release. Sizes in bytes, times in seconds."""

    protocol: int
    max_payload: int
    roster_is_map: bool
    merges_lists: bool
    restarts_on_patch: bool
    spaces_restarts: bool
    writes_variables: bool
    shows_references: bool
    refused_files: tuple[str, ...]
    listed_files: tuple[str, ...]
    health_needs_read: bool
    config_get_scope: str
    explains_errors: bool
    explains_admission: bool
    names_issues: bool
    shows_auth: bool
    trusted_modes: frozenset[str]
    pairs_local_backends: bool
    refuses_origin: bool
    runs_all_agents: bool
    reports_failed_runs: bool
    unknown_agent_in_files: str
    patches_a_minute: int | None
    locks_out: bool
    advises_retries: bool
    issues_device_tokens: bool
    lists_workspace: bool
    checks_file_writes: bool
    loses_concurrent_creates: bool
    checks_concurrent_patches: bool
    restarts_for_channels: bool
    repeats_failed_runs: bool
    names_wakes_in_history: bool
    wakes_unknown_agents: bool
    takes_bootstrap: bool
    writes_includes: bool
    leaves_distant_folders: bool


_2026_2_12 = Expected(
    protocol=3,
    max_payload=8_388_608,
    roster_is_map=False,
    merges_lists=False,
    restarts_on_patch=True,
    spaces_restarts=False,
    writes_variables=True,
    shows_references=False,
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
    explains_admission=False,
    names_issues=False,
    shows_auth=True,
    trusted_modes=frozenset({"backend", "ui", "cli"}),
    pairs_local_backends=True,
    refuses_origin=False,
    runs_all_agents=False,
    reports_failed_runs=True,
    unknown_agent_in_files="unknown agent id",
    patches_a_minute=None,
    locks_out=False,
    advises_retries=False,
    issues_device_tokens=True,
    lists_workspace=False,
    checks_file_writes=False,
    loses_concurrent_creates=True,
    checks_concurrent_patches=False,
    restarts_for_channels=False,
    repeats_failed_runs=True,
    names_wakes_in_history=False,
    wakes_unknown_agents=True,
    takes_bootstrap=False,
    writes_includes=True,
    leaves_distant_folders=False,
)

_2026_3_13 = replace(
    _2026_2_12,
    max_payload=26_214_400,
    merges_lists=True,
    spaces_restarts=True,
    writes_variables=False,
    health_needs_read=False,
    config_get_scope="operator.read",
    explains_admission=True,
    names_issues=True,
    shows_auth=False,
    trusted_modes=frozenset(),
    pairs_local_backends=False,
    refuses_origin=True,
    runs_all_agents=True,
    reports_failed_runs=False,
    patches_a_minute=3,
    advises_retries=True,
    checks_file_writes=True,
)

_2026_9_6 = Expected(
    protocol=4,
    max_payload=26_214_400,
    roster_is_map=True,
    merges_lists=False,
    restarts_on_patch=False,
    spaces_restarts=False,
    writes_variables=False,
    shows_references=True,
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
    explains_admission=True,
    names_issues=True,
    shows_auth=True,
    trusted_modes=frozenset({"backend", "cli"}),
    pairs_local_backends=False,
    refuses_origin=True,
    runs_all_agents=True,
    reports_failed_runs=True,
    unknown_agent_in_files='agent "nobody" not found',
    patches_a_minute=30,
    locks_out=True,
    advises_retries=True,
    issues_device_tokens=False,
    lists_workspace=True,
    checks_file_writes=False,
    loses_concurrent_creates=False,
    checks_concurrent_patches=True,
    restarts_for_channels=False,
    repeats_failed_runs=True,
    names_wakes_in_history=True,
    wakes_unknown_agents=False,
    takes_bootstrap=True,
    writes_includes=True,
    leaves_distant_folders=False,
)

_2026_2_26 = replace(
    _2026_3_13,
    names_issues=False,
    shows_auth=True,
    trusted_modes=frozenset({"backend", "ui", "cli"}),
    pairs_local_backends=True,
    advises_retries=False,
    checks_file_writes=False,
)

_2026_7_1 = replace(
    _2026_9_6,
    roster_is_map=False,
    merges_lists=True,
    refused_files=_2026_2_12.refused_files,
    listed_files=_2026_2_12.listed_files,
    shows_references=False,
    explains_errors=False,
    unknown_agent_in_files="unknown agent id",
    patches_a_minute=3,
    checks_concurrent_patches=False,
    restarts_for_channels=True,
    repeats_failed_runs=False,
    writes_includes=False,
    leaves_distant_folders=True,
)

EXPECTED = {
    "2026.2.12": _2026_2_12,
    "2026.2.26": _2026_2_26,
    "2026.3.13": _2026_3_13,
    "2026.7.1": _2026_7_1,
    "2026.9.6": _2026_9_6,
}
