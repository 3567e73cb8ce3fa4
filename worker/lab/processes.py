"""Runs our own programs as child processes of a command, and stops them without interruption."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from worker.errors import PermanentError
from worker.lab.servers.supervised_process import Program, SupervisedProcess

_START_S = 120.0
_POLL_S = 0.05


class ProcessFailedError(PermanentError):
    """A process did not start, or ended; the sentence says which."""


def start_python(
    module: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    *,
    cwd: Path | None = None,
    grace_s: float = 10.0,
) -> SupervisedProcess:
    """Start ``python -m module``, which writes to ``log`` and ends when this process does.

    ``environment`` is its whole environment; ``grace_s``: seconds between SIGTERM and SIGKILL at its end.
    """
    return SupervisedProcess(
        Program(
            [sys.executable, "-m", module, *arguments],
            env={**environment, "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"},
            log_path=log,
            cwd=cwd or log.parent,
            grace_s=grace_s,
        )
    )


def await_sign(sign: Callable[[], bool], process: SupervisedProcess, who: str) -> None:
    """Wait until ``sign()`` is true. Raises ProcessFailedError if the process ends, or after 120 s."""
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        ended = process.poll() is not None
        if sign():
            return
        if ended:
            raise ProcessFailedError(f"{who} did not start.")
        time.sleep(_POLL_S)
    raise ProcessFailedError(
        f"{who} was not ready within {_START_S:.0f} s: what it has said, if anything, is in"
        f" {process.log_path}; where its machine is busy or slow, try again."
    )


def line_with(log: Path, part: str) -> str | None:
    """The first line of ``log`` that contains ``part``; None if there is none yet."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return next((line for line in lines if part in line), None)


@contextlib.contextmanager
def signals_unwind() -> Iterator[None]:
    """Make SIGTERM and SIGHUP end the command as Ctrl-C does, with all processes stopped."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    with _handling((signal.SIGTERM, signal.SIGHUP), end):
        yield


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore further signals while processes are stopped."""
    with _handling((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), lambda *_: None):
        yield


class Processes:
    """A context manager that, on exit, runs the clean-ups registered in ``_open``, in reverse order.

    Signals do not interrupt them.
    """

    def __init__(self) -> None:
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with undisturbed():
            self._open.close()


@contextlib.contextmanager
def _handling(signals: Sequence[signal.Signals], handler: Callable[[int, object], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
