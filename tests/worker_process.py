"""A real Celery worker, as `celery -A worker.app worker` starts it, for tests to use and to kill."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from worker.local.tethered import Program, Tethered

ROOT = Path(__file__).parents[1]


class WorkerProcess:
    """Ready once made. ``settings`` are environment variables of worker.settings."""

    def __init__(self, log_path: Path, settings: Mapping[str, str], *, name: str = "w") -> None:
        self.log_path = log_path
        environment = {"PATH": os.defpath, "HOME": os.environ.get("HOME", "/"), **settings}
        argv = [sys.executable, "-m", "celery", "-A", "worker.app", "worker", "-n", f"{name}@%h"]
        began = log_path.stat().st_size if log_path.exists() else 0
        self._process = Tethered(Program(argv, env=environment, log_path=log_path, cwd=ROOT, grace_s=50.0))
        self._await_ready(began)

    def log(self) -> str:
        """All that it has said so far, with what earlier ones said to the same file."""
        return self.log_path.read_text(errors="replace")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL, as the kernel does when memory is short."""
        self._process.kill()

    def terminate(self) -> None:
        """SIGTERM, without waiting."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> int:
        """Its exit code. Raises TimeoutError while it runs on."""
        return self._process.wait(timeout_s)

    def stop(self) -> None:
        """SIGTERM, and wait."""
        self._process.stop()

    def _await_ready(self, began: int) -> None:
        deadline = time.monotonic() + 60
        while b" ready." not in self.log_path.read_bytes()[began:]:
            if not self.running or time.monotonic() > deadline:
                self._process.kill()
                raise AssertionError(f"the worker did not come up:\n{self.log()[-3000:]}")
            time.sleep(0.05)
