"""A worker of an earlier release, from a git worktree of its own with packages of its own."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from tests.worker_process import QUICK_ROUNDS, REDELIVERED, ROOT, WorkerProcess

FOLDER = ROOT / ".chaos" / "releases"
_MAKE_S = 300.0
_START_S = 60.0
_RUN = """
from worker import broker
from worker.workspace import tokens
tokens.ROUNDS = {rounds}
broker.VISIBILITY_TIMEOUT_S = {redelivered_s}
import sys
sys.argv = ["celery", "-A", "worker.app", "worker", "-n", "{name}@%h"]
from celery.__main__ import main
main()
"""


class NotMade(Exception):
    """The release cannot be set up here; the message says why."""


def old_release(name: str, commit: str) -> Path:
    """The folder of the release, ready to run; it is made once. Raises NotMade."""
    folder = FOLDER / name
    made = folder / ".venv" / "ready"
    if made.exists():
        return folder
    try:
        if not folder.exists():
            FOLDER.mkdir(parents=True, exist_ok=True)
            _do("git", "worktree", "prune", at=ROOT)
            _do("git", "worktree", "add", "--force", "--detach", str(folder), commit, at=ROOT)
        _do("make", "setup", at=folder)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or error
        raise NotMade(f"{name} cannot be set up in {folder}: {said}") from error
    return folder


def _do(*command: str, at: Path) -> None:
    subprocess.run(command, cwd=at, check=True, capture_output=True, text=True, timeout=_MAKE_S)


class OldWorker(WorkerProcess):
    """A running worker of the release in ``folder``. The constructor returns when it is ready.

    ``settings``: its environment variables, `REDELIVERED` included.
    """

    def __init__(self, folder: Path, log_path: Path, settings: Mapping[str, str], *, name: str) -> None:
        self.log_path = log_path
        program = _RUN.format(rounds=QUICK_ROUNDS, name=name, redelivered_s=int(settings[REDELIVERED]))
        with log_path.open("ab") as log:
            self._old = subprocess.Popen(
                [str(folder / ".venv" / "bin" / "python"), "-c", program],
                cwd=folder,
                env={"PATH": os.defpath, "HOME": os.environ.get("HOME", "/"), **settings},
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _START_S
        while " ready." not in self.log():
            if not self.running or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"the worker of {folder.name} did not come up:\n{self.log()[-3000:]}")
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        return self._old.pid

    @property
    def running(self) -> bool:
        return self._old.poll() is None

    def kill(self) -> None:
        self._old.kill()
        self._old.wait()

    def terminate(self) -> None:
        self._old.terminate()

    def wait(self, timeout_s: float) -> int:
        try:
            return self._old.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"worker {self.pid} still runs after {timeout_s:g} s") from None
