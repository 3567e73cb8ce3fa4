"""A real OpenClaw release as a candidate: npm, a gateway of its own, and the scene as a process of pytest."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.gateways.stub_model import StubModel
from tests.smoke.owner import owners_config
from tests.smoke.verdicts import EnvironmentFailed, Scene, WrongResult
from worker.lab.openclaw import GatewayNotReady, GatewayRefused, OpenClaw, RunningGateway
from worker.lab.openclaw.__main__ import NPM_FAILED, REGISTRY_REFUSED
from worker.lab.openclaw.readiness import Refused, wait_until_ready

UNFINISHED = 75
"""pytest's exit code where the scene could not go on (tests/smoke/conftest.py)."""
_ANSWER_S = 30.0


class RealGateway:
    """A gateway whose process we own. ``process`` is not supervised: once it ends, it stays so."""

    def __init__(self, process: RunningGateway, state: Path) -> None:
        self.process = process
        self.state = state

    @property
    def running(self) -> bool:
        return self.process.running

    def lets_us_in(self) -> bool:
        """Whether it accepts a ``connect`` within half a minute; a restart of its own takes less."""
        with contextlib.suppress(Refused):
            return wait_until_ready(
                self.process.url,
                self.process.token,
                deadline=time.monotonic() + _ANSWER_S,
                is_alive=lambda: self.process.running,
            )
        return True  # it is up, and refuses us

    def run_scene(self, limit_s: float) -> Scene:
        code = _run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/smoke"),
                *("--target", f"openclaw:{self.process.release}", "--running", str(self.state)),
            ],
            limit_s,
        )
        if code == 0:
            return Scene.PASSED
        return Scene.UNFINISHED if code in (UNFINISHED, None) else Scene.WRONG


class RealRelease:
    """``name`` is an OpenClaw release."""

    def __init__(self, name: str) -> None:
        self.name = name

    def install(self, limit_s: float) -> None:
        code = _run([sys.executable, "-m", "worker.lab.openclaw", self.name], limit_s)
        if code is None:
            raise EnvironmentFailed(f"npm did not install it in {limit_s:.0f} s")
        if code in (NPM_FAILED, REGISTRY_REFUSED):
            raise EnvironmentFailed("npm did not install it (its reason is above)")
        if code != 0:
            raise WrongResult(f"the install ended with code {code}")

    @contextlib.contextmanager
    def gateway(self, limit_s: float) -> Iterator[RealGateway]:
        with tempfile.TemporaryDirectory(prefix="openclaw-smoke-") as folder, StubModel() as model:
            state = Path(folder) / "state"
            # Each run that 2026.2.12 begins for an agent fails, with a model or without.
            extra = model.config if self.name > "2026.2.12" else {}
            config = owners_config(self.name, extra)
            process = RunningGateway(OpenClaw.install(self.name), state, config_extra=config)
            try:
                process.start(limit_s)
            except GatewayRefused as refused:
                raise WrongResult(str(refused)) from None
            except GatewayNotReady as not_ready:
                raise EnvironmentFailed(str(not_ready)) from None
            try:
                yield RealGateway(process, state)
            finally:
                process.stop()


def _run(command: Sequence[str], limit_s: float) -> int | None:
    """The exit code of ``command``; None where it was ended after ``limit_s``."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        print(f"{' '.join(command[1:4])} was ended after {limit_s:.0f} s", flush=True)
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
