"""Who ends by itself comes back; who was told to stop does not. With programs that end at once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conformance.steps import eventually
from worker.lab.openclaw.supervisor import Supervisor
from worker.lab.servers.supervised_process import Program, SupervisedProcess

PATIENCE_S = 20.0


class Scripts:
    """Starts a shell with one script after another, and the last of them from then on."""

    def __init__(self, folder: Path, *scripts: str) -> None:
        self._folder = folder
        self._scripts = list(scripts)
        self.started: list[SupervisedProcess] = []
        self.told: list[int] = []

    def first(self) -> SupervisedProcess:
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        program = Program(["/bin/sh", "-c", script], env={"PATH": os.defpath}, log_path=self._folder / "log")
        self.started.append(SupervisedProcess(program))
        return self.started[-1]

    def again(self, code: int) -> SupervisedProcess:
        self.told.append(code)
        return self.first()


@contextmanager
def supervised(scripts: Scripts, again_after_s: float) -> Iterator[Supervisor]:
    supervisor = Supervisor(scripts.first(), scripts.again, again_after_s=again_after_s)
    try:
        yield supervisor
    finally:
        supervisor.end()
        for process in scripts.started:
            process.stop()


def test_whoever_ends_is_started_again_and_the_codes_are_kept(tmp_path: Path) -> None:
    scripts = Scripts(tmp_path, "exit 0", "exit 7", "exec sleep 600")
    with supervised(scripts, 0.01) as supervisor:
        eventually(lambda: len(supervisor.comebacks) == 2, PATIENCE_S)
        assert supervisor.comebacks == scripts.told == [0, 7]
        last = scripts.started[-1]
        assert last.poll() is None
        os.kill(last.pid, signal.SIGTERM)
        eventually(lambda: len(scripts.started) == 4, PATIENCE_S)
        assert scripts.told == [0, 7, 128 + signal.SIGTERM]


def test_it_waits_before_it_starts_the_next(tmp_path: Path) -> None:
    scripts = Scripts(tmp_path, "exit 1", "exec sleep 600")
    began = time.monotonic()
    with supervised(scripts, 0.5):
        eventually(lambda: len(scripts.started) == 2, PATIENCE_S)
        assert time.monotonic() - began >= 0.5


def test_after_its_end_nothing_is_started_any_more(tmp_path: Path) -> None:
    """Also where the wait for the next had begun."""
    scripts = Scripts(tmp_path, "exit 1", "exec sleep 600")
    with supervised(scripts, 600) as supervisor:
        eventually(lambda: scripts.started[0].poll() is not None, PATIENCE_S)
        supervisor.end()
        assert len(scripts.started) == 1
