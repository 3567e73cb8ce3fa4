"""A real Celery worker or beat, as `celery -A worker.app worker` starts it, for tests to use and to kill.

It is forked from a process that has imported everything that a worker imports, except the settings, and
compiled the shipped templates: that is most of a worker's start, and the tests start dozens. Its hashes use
few rounds, because most of a provision's CPU time is PBKDF2; the processes of the demo and the benchmarks use
all of them.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping
from multiprocessing import connection, forkserver
from pathlib import Path

from worker import broker
from worker.runtime import gateway_slots
from worker.workspace import tokens

ROOT = Path(__file__).parents[1]
QUICK_ROUNDS = 1_000
"""Rounds of PBKDF2 in the tests' hashes; the usual number takes 0.1 s of CPU."""
REDELIVERED = "TESTS_REDELIVERED_AFTER_S"
"""Environment variable of a worker: seconds until the broker gives away again what it took and did not
acknowledge, in place of ten minutes."""
REPUBLISHED = "TESTS_REPUBLISHED_AFTER_S"
"""The same: seconds until the message of a row counts as lost, in place of ten to sixty."""
SLOTS_OF_A_GATEWAY = "TESTS_SLOTS_OF_A_GATEWAY"
"""The same: how many slots one gateway may have, in place of six."""
_GRACE_S = 50.0
_PR_SET_PDEATHSIG = 1
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "billiard.pool",
        "celery.app.amqp",
        "celery.app.control",
        "celery.app.events",
        "celery.app.log",
        "celery.apps.beat",
        "celery.apps.worker",
        "celery.bin.celery",
        "celery.concurrency.thread",
        "celery.fixups.django",
        "celery.worker.autoscale",
        "celery.worker.consumer.delayed_delivery",
        "celery.worker.strategy",
        "kombu.transport.redis",
        "worker.beat",
        "worker.dispatcher",
        "worker.reconnect",
        "worker.jobs.intake",
        "worker.jobs.schedule_firing",
        "worker.logs",
        "worker.records.agent_rows",
        "worker.sync.heartbeat_job",
        "worker.roster.writer",
        "worker.sync.execution",
        "worker.agents.execution",
        "worker.schema_version",
        "tests.warm_worker",
    ]
)


class CeleryProcess:
    """A running ``celery`` process with ``arguments``. The constructor returns when ``sign`` appears in the
    log. ``settings``: its environment variables."""

    def __init__(
        self,
        log_path: Path,
        arguments: list[str],
        settings: Mapping[str, str],
        sign: bytes,
        hash_rounds: int = QUICK_ROUNDS,
        trace: Path | None = None,
    ) -> None:
        self.log_path = log_path
        log_path.touch()
        began = log_path.stat().st_size
        environment = {"PATH": os.defpath, "HOME": os.environ.get("HOME", "/"), **settings}
        self._process = _FORKS.Process(
            target=_celery, args=(arguments, environment, log_path, hash_rounds, trace), daemon=True
        )
        self._process.start()
        self._await(sign, began)

    def log(self) -> str:
        """The whole log file, including the lines of earlier processes that used it."""
        return self.log_path.read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.exitcode is None

    def kill(self) -> None:
        """Send SIGKILL, as the kernel does when memory is short, and wait until the process has ended."""
        self._process.kill()
        self._process.join()

    def terminate(self) -> None:
        """Send SIGTERM without waiting."""
        self._process.terminate()

    def wait(self, timeout_s: float) -> int:
        """Wait for the process to end, and return its exit code, or -n if signal n ended it. Raises
        TimeoutError if it still runs after ``timeout_s`` seconds."""
        self._process.join(timeout_s)
        if self._process.exitcode is None:
            raise TimeoutError(f"{self._process.name} still runs after {timeout_s:g} s")
        return self._process.exitcode

    def stop(self) -> None:
        """Send SIGTERM and wait; after _GRACE_S seconds, kill the process."""
        self.terminate()
        try:
            self.wait(_GRACE_S)
        except TimeoutError:
            self.kill()

    def _await(self, sign: bytes, began: int) -> None:
        deadline = time.monotonic() + 60
        while sign not in self.log_path.read_bytes()[began:]:
            if not self.running or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"it did not come up:\n{self.log()[-3000:]}")
            connection.wait([self._process.sentinel], timeout=0.02)


class WorkerProcess(CeleryProcess):
    """A running worker. ``settings``: environment variables, as in worker.settings."""

    def __init__(
        self,
        log_path: Path,
        settings: Mapping[str, str],
        *,
        name: str = "w",
        hash_rounds: int = QUICK_ROUNDS,
        trace: Path | None = None,
    ) -> None:
        arguments = ["-A", "worker.app", "worker", "-n", f"{name}@%h"]
        super().__init__(log_path, arguments, settings, b" ready.", hash_rounds, trace)


class BeatProcess(CeleryProcess):
    """A running beat of ``app``."""

    def __init__(self, log_path: Path, settings: Mapping[str, str], *, app: str = "worker.app") -> None:
        super().__init__(log_path, ["-A", app, "beat"], settings, b"beat: Starting...")


def _celery(
    arguments: list[str],
    environment: Mapping[str, str],
    log_path: Path,
    hash_rounds: int,
    trace: Path | None,
) -> None:
    """Turn the forked process into the one that a shell would have started."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # end with the tests, however they end
    # The fork server ends when no process holds this open: it must not outlive tests that are killed.
    os.close(vars(forkserver)["_forkserver"]._forkserver_alive_fd)
    log = os.open(log_path, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    sys.argv = ["celery", *arguments]
    tokens.ROUNDS = hash_rounds
    if SLOTS_OF_A_GATEWAY in environment:
        gateway_slots.MOST_PER_GATEWAY = int(environment[SLOTS_OF_A_GATEWAY])
    if REDELIVERED in environment:
        broker.VISIBILITY_TIMEOUT_S = int(environment[REDELIVERED])
    if REPUBLISHED in environment:
        _publish_again_after(int(environment[REPUBLISHED]))
    if trace is not None:
        from tests.benchmarks.trace import trace_to

        trace_to(trace)
    from celery.__main__ import main

    main()


def _publish_again_after(seconds: int) -> None:
    """Set the times in all modules that have imported them."""
    for name, module in list(sys.modules.items()):
        if name.startswith("worker.jobs.store."):
            for constant in {"REPUBLISH_AFTER_S", "LOST_AFTER_S"} & vars(module).keys():
                setattr(module, constant, seconds)
