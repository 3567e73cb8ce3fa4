"""A simulated gateway as a separate process, for users without a real one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from worker.lab.processes import await_sign, line_with, start_python
from worker.lab.servers.supervised_process import SupervisedProcess

RELEASE = "2026.9.6"
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV")
_LISTENS = " on ws://"


class SimulatedGateway:
    """Runs ``python -m worker.lab.simulator`` as the newest known release, with its state in ``folder``.

    ``port``: 0 for a free one. ``journal``: the file to which the gateway appends every call, if any.
    """

    def __init__(self, folder: Path, *, port: int = 0, journal: Path | None = None) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._token_file = folder / "token"
        if not self._token_file.exists():
            with open(os.open(self._token_file, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(24))
        self.token = self._token_file.read_text()
        self.url = ""
        self.log_path = folder / "gateway.log"
        self.journal = journal
        self.port = port
        self._folder = folder
        self._process: SupervisedProcess | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the gateway and wait until it listens. Raises ProcessFailedError."""
        self.log_path.unlink(missing_ok=True)
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        process = self._process = start_python(
            "worker.lab.simulator", self._options(), environment, self.log_path
        )
        await_sign(lambda: bool(line_with(self.log_path, _LISTENS)), process, "The simulated gateway")
        self.url = (line_with(self.log_path, _LISTENS) or "").rsplit(" ", 1)[1]

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()

    def _options(self) -> Sequence[str]:
        options = ["--release", RELEASE, "--port", str(self.port), "--token-file", str(self._token_file)]
        options += ["--state-dir", str(self._folder / "state"), "--reply", "Understood."]
        return [*options, "--journal", str(self.journal)] if self.journal else options
