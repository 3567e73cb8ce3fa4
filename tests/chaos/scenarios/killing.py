"""Workers are killed, asked to stop, and stopped for longer than their leases."""

from __future__ import annotations

import os
import signal
import time

from tests.chaos.scenario import Scenario
from tests.chaos.stage import SETTINGS, Stage
from tests.worker_process import WorkerProcess

FROZEN_S = 2 * float(SETTINGS["LEASE_S"])


def kill_at_random(stage: Stage) -> None:
    """Workers get SIGKILL, at moments that the seed chooses."""

    def kill() -> None:
        stage.replace(stage.rng.choice(stage.workers), WorkerProcess.kill)

    with stage.disturbed_by(kill, (0.05, 0.8)):
        stage.commission()


def stop_at_random(stage: Stage) -> None:
    """Workers get SIGTERM, as from a deployment, and others take their place."""

    def stop() -> None:
        stage.replace(stage.rng.choice(stage.workers), WorkerProcess.stop)

    with stage.disturbed_by(stop, (0.05, 0.8)):
        stage.commission()


def freeze_at_random(stage: Stage) -> None:
    """Workers are stopped for longer than a lease, and go on when another has gone on with their work."""

    def freeze() -> None:
        worker = stage.rng.choice(stage.workers)
        os.kill(worker.pid, signal.SIGSTOP)
        stage.broken += 1
        time.sleep(FROZEN_S)
        os.kill(worker.pid, signal.SIGCONT)

    with stage.disturbed_by(freeze, (0.0, 1.0)):
        stage.commission()


SCENARIOS = (
    Scenario("workers killed", kill_at_random),
    Scenario("workers stopped", stop_at_random),
    Scenario("workers frozen", freeze_at_random),
)
