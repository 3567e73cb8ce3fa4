"""Child processes that end when this process ends, however it ends and whichever thread started them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from worker.errors import PermanentError
from worker.lab.servers.account import Account

_SUPERVISOR = Path(__file__).with_name("process_supervisor.py")


class CannotStart(PermanentError):
    """The program could not be executed at all."""


@dataclass(frozen=True)
class Program:
    """A program to run. ``stdin``: the text for its standard input, which never shows on a command line.

    ``env`` is its whole environment. ``account``: the account to run it as, None for our own. ``pass_fds``:
    descriptors that it inherits under the same numbers. ``stop_signal`` asks it to end; SIGKILL follows after
    ``grace_s`` seconds. ``orphan_signal`` is sent if the supervisor is killed too.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(repr=False)
    log_path: Path
    cwd: Path | None = None
    account: Account | None = None
    stdin: str = field(default="", repr=False)
    pass_fds: tuple[int, ...] = ()
    stop_signal: signal.Signals = signal.SIGTERM
    orphan_signal: signal.Signals = signal.SIGKILL
    grace_s: float = 10.0


class SupervisedProcess:
    """A running ``Program``. Raises ``CannotStart`` if it cannot be executed."""

    def __init__(self, program: Program) -> None:
        self._program = program
        with program.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_SUPERVISOR)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                cwd="/",
                env={key: value for key, value in os.environ.items() if key.startswith("LD_")},
                pass_fds=program.pass_fds,
                start_new_session=True,
            )
        try:
            self.pid = self._hand_over()
        except BaseException:
            self.stop()
            raise

    @property
    def log_path(self) -> Path:
        """The path of the program's log."""
        return self._program.log_path

    def _hand_over(self) -> int:
        program = self._program
        command = {
            "owner_pid": os.getpid(),
            "argv": list(program.argv),
            "env": dict(program.env),
            "cwd": str(program.cwd or "/"),
            "account": [program.account.uid, program.account.gid] if program.account else None,
            "stdin": program.stdin,
            "pass_fds": list(program.pass_fds),
            "stop_signal": int(program.stop_signal),
            "orphan_signal": int(program.orphan_signal),
            "grace_s": program.grace_s,
        }
        self._send(json.dumps(command))
        assert self._process.stdout is not None
        with self._process.stdout as answers:
            line = answers.readline()
        answer = (
            json.loads(line) if line else {"error": f"cannot run {program.argv[0]}: see {program.log_path}"}
        )
        if "error" in answer:
            raise CannotStart(str(answer["error"]))
        return int(answer["pid"])

    def poll(self) -> int | None:
        """The program's exit code (128 + n if signal n ended it); None while it runs."""
        code = self._process.poll()
        if code is not None:
            self._close_stdin()
        return code

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for the exit code. Raises ``TimeoutError`` if it still runs after ``timeout_s`` seconds."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self._program.argv[0]} still runs after {timeout_s:g} s") from None
        self._close_stdin()
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send the program a signal, SIGSTOP and SIGCONT included; does nothing once it has ended."""
        self._send(str(int(number)))

    def stop(self) -> None:
        """Ask the program to end, wait, and kill it after the grace period. Idempotent."""
        self._send("stop")
        self._close_stdin()
        try:
            self._process.wait(self._program.grace_s + 15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def kill(self) -> None:
        """Send SIGKILL at once."""
        self.send_signal(signal.SIGKILL)
        self.stop()

    def _close_stdin(self) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def _send(self, line: str) -> None:
        stdin = self._process.stdin
        if stdin is None or stdin.closed:
            return
        data = line.encode() + b"\n"
        with contextlib.suppress(BrokenPipeError):
            while data:
                data = data[stdin.write(data) or 0 :]
