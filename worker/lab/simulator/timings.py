"""The delays of the simulated gateway, which stand for the times that a real one needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timings:
    """Durations in seconds, each described below its name.

    The defaults keep the proportions of real gateways, but are short for quick tests.
    """

    latency_s: float = 0.0
    """Before every answer."""
    config_write_s: float = 0.01
    """Between the read and the write of a config write: on 2026.2.12 the window in which updates are lost."""
    restart_delay_s: float = 0.2
    """From a patch's answer to the restart that it causes, if the request has no restartDelayMs."""
    restart_cooldown_s: float = 1.5
    """On 2026.3.13, the shortest time between two restarts by patches: 30 s on a real gateway."""
    limit_window_s: float = 3.0
    """The window in which config.patch calls are counted: 60 s on a real gateway, and in the refusal."""
    file_write_s: float = 0.002
    """How long writing a file takes, if that keeps others from writing it (2026.3.13)."""
    reload_delay_s: float = 0.05
    """From a change to ``channels`` to the restart that the config watcher causes."""
    down_s: float = 0.1
    """How long the port refuses connections in a restart."""
    closing_s: float = 0.02
    """How long a stopping 2026.9.6 answers upgrades with HTTP 503 before its port refuses them."""
    starting_s: float = 0.0
    """How long a new boot answers ``connect`` with "gateway starting"."""
    heartbeat_job_s: float = 0.02
    """From a heartbeat block in the config to its cron job."""
    history_s: float = 0.02
    """From the answer to chat.send until chat.history shows its message."""
    run_s: float = 0.05
    """How long an agent's run takes."""
    tick_s: float = 30.0
    """Between ``tick`` events."""


QUICK = Timings()

MEASURED: dict[str, Timings] = {
    "2026.2.12": Timings(
        latency_s=0.001,
        config_write_s=0.03,
        restart_delay_s=2.0,
        reload_delay_s=0.5,
        down_s=0.4,
        history_s=0.1,
        run_s=0.5,
    ),
    "2026.3.13": Timings(
        latency_s=0.001,
        config_write_s=0.03,
        restart_delay_s=2.0,
        restart_cooldown_s=30.0,
        limit_window_s=60.0,
        reload_delay_s=0.5,
        down_s=0.05,
        history_s=0.1,
        run_s=0.5,
    ),
    "2026.9.6": Timings(
        latency_s=0.003,
        config_write_s=0.7,
        restart_delay_s=0.5,
        reload_delay_s=0.5,
        limit_window_s=60.0,
        down_s=11.0,
        closing_s=0.35,
        starting_s=1.0,
        heartbeat_job_s=3.0,
        history_s=0.4,
        run_s=2.0,
    ),
}
"""The durations that were measured on real gateways, by release (gateways.md 4, 5, 8)."""
