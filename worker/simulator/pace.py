"""How long the simulated gateway takes for what a real one takes time for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """All times in seconds. The defaults are quick, so that tests are; ratios are the real ones."""

    latency_s: float = 0.0
    """Before every answer."""
    config_write_s: float = 0.01
    """Between a config write's read and its write: on 2026.2.12 the window in which updates are lost."""
    restart_delay_s: float = 0.2
    """From a patch's answer to the restart it causes; the answer names it as ``restart.delayMs``."""
    reload_delay_s: float = 0.05
    """From a change to ``channels`` to the restart that the config watcher causes by itself."""
    down_s: float = 0.1
    """How long the port refuses connections in a restart."""
    starting_s: float = 0.0
    """How long a new boot answers ``connect`` with "gateway starting"."""
    heartbeat_job_s: float = 0.1
    """From a heartbeat block in the config to its cron job."""
    history_s: float = 0.02
    """From the answer to chat.send until chat.history shows its message."""
    run_s: float = 0.05
    """How long an agent's run takes."""
    tick_s: float = 30.0
    """Between ``tick`` events."""


QUICK = Pace()

MEASURED: dict[str, Pace] = {
    "2026.2.12": Pace(
        latency_s=0.001,
        config_write_s=0.03,
        restart_delay_s=2.0,
        reload_delay_s=0.5,
        down_s=0.4,
        history_s=0.1,
        run_s=0.5,
    ),
    "2026.9.6": Pace(
        latency_s=0.003,
        config_write_s=0.7,
        restart_delay_s=0.5,
        reload_delay_s=0.5,
        down_s=11.0,
        starting_s=1.0,
        heartbeat_job_s=3.0,
        history_s=0.4,
        run_s=2.0,
    ),
}
"""As gateway.md 4, 5 and 8 measured them."""
