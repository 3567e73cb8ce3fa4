"""The small process between an owner and its server, which ends the server when the owner ends.

A program of its own, not a module to import: ``worker.lab.servers.supervised_process`` starts it as a file,
isolated and without site packages, so that it is up in a few hundredths of a second.

Standard input: one JSON line that says what to run, then lines that are a signal number or ``stop``. The end
of the input means that the owner is gone. Standard output: one JSON line, ``{"pid": ...}`` or
``{"error": ...}``. Standard error goes to the server's log. Exit code: the server's, 128 + n when signal n
ended it.

The kernel's own death signal follows the *thread* that started a process and is not inherited by
grandchildren. So this process, which has one thread, is the parent; the owner's end reaches it as the end of
its input, and its own end reaches the server as the death signal (Linux).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
CANNOT_RUN = 125


def _prctl() -> Callable[[int, int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    return lambda option, value: int(libc.prctl(option, value, 0, 0, 0))


class OwnerPipe:
    """Reads the commands that the owner sends, one per line, until the owner ends."""

    def __init__(self, owner_pid: int | None = None) -> None:
        self.owner_pid = owner_pid
        self._buffer = b""
        self._lines: list[str] = []
        self._ended = False

    def ask_to_stop(self) -> None:
        self._lines.append("stop")

    def first_line(self) -> str | None:
        while not self._lines and not self._ended:
            self._read()
        return self._lines.pop(0) if self._lines else None

    def wait(self, also: int, timeout_s: float) -> None:
        """Wait until a command comes, ``also`` is readable, or ``timeout_s`` seconds have passed."""
        ready, _, _ = select.select([also] if self._ended else [0, also], [], [], timeout_s)
        if 0 in ready:
            self._read()

    def commands(self) -> list[str]:
        lines, self._lines = self._lines, []
        # A fork of the owner may hold the other end of the pipe open: so its pid counts as well.
        if self._ended or (self.owner_pid is not None and os.getppid() != self.owner_pid):
            lines.append("stop")
        return lines

    def _read(self) -> None:
        chunk = os.read(0, 65536)
        self._ended = not chunk
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        self._lines += [line.decode() for line in lines]


class Server:
    """The supervised program and, on Linux, the processes that it leaves behind."""

    def __init__(self, command: dict[str, Any]) -> None:
        self.stop_signal = int(command["stop_signal"])
        self.grace_s = float(command["grace_s"])
        self.code: int | None = None
        prctl = _prctl()
        if prctl is not None:
            prctl(PR_SET_CHILD_SUBREAPER, 1)
        here = os.getpid()

        def die_with_the_supervisor() -> None:
            if prctl is not None:
                prctl(PR_SET_PDEATHSIG, int(command["orphan_signal"]))
                if os.getppid() != here:
                    os._exit(CANNOT_RUN)

        drop = command["account"]
        self._process = subprocess.Popen(
            command["argv"],
            env=command["env"],
            cwd=command["cwd"],
            stdin=subprocess.PIPE if command["stdin"] else subprocess.DEVNULL,
            stdout=2,
            start_new_session=True,
            pass_fds=command["pass_fds"],
            # Runs after the change of user, which would clear the death signal.
            preexec_fn=die_with_the_supervisor,
            **({"user": drop[0], "group": drop[1], "extra_groups": []} if drop else {}),
        )
        self.pid = self._process.pid
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
                stdin.write(command["stdin"].encode())

    def signal(self, number: int) -> None:
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def reap(self) -> None:
        """Reap all ended children: the server, and its orphans that the kernel gave to us."""
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self.pid:
                    self.code = self._process.returncode = os.waitstatus_to_exitcode(found[1])

    def kill_the_rest(self) -> None:
        """Send SIGKILL to processes that the server left behind, in its group and among our children."""
        until = time.monotonic() + 5
        if self.code is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        while (left := self._children()) and time.monotonic() < until:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
            self.reap()

    @staticmethod
    def _children() -> list[int]:
        try:
            with open(f"/proc/self/task/{os.getpid()}/children") as children:
                return [int(pid) for pid in children.read().split()]
        except OSError:
            return []


def _watch(server: Server, pipe: OwnerPipe, wakeup: int) -> None:
    kill_at: float | None = None
    while server.code is None:
        for command in pipe.commands():
            if command != "stop":
                server.signal(int(command))
            elif kill_at is None:
                server.signal(server.stop_signal)
                kill_at = time.monotonic() + server.grace_s
        if kill_at is not None and time.monotonic() > kill_at:
            server.signal(signal.SIGKILL)
        pipe.wait(wakeup, 0.5 if kill_at is None else 0.05)
        with contextlib.suppress(BlockingIOError):
            os.read(wakeup, 4096)
        server.reap()


def _tell(answer: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(answer).encode() + b"\n")


def main() -> int:
    pipe = OwnerPipe()
    line = pipe.first_line()
    if line is None:
        return CANNOT_RUN
    command = json.loads(line)
    pipe.owner_pid = int(command["owner_pid"])

    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: pipe.ask_to_stop())
    try:
        server = Server(command)
    except OSError as error:
        _tell({"error": f"cannot run {command['argv'][0]}: {error.strerror}"})
        return CANNOT_RUN
    _tell({"pid": server.pid})
    _watch(server, pipe, woken)
    server.kill_the_rest()
    code = server.code
    return CANNOT_RUN if code is None else code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
