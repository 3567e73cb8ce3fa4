"""Looking at processes from outside: who descends from whom, who still runs, what they were started with."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Seen:
    """A process as it was seen: the start time tells it from a later one with the same pid."""

    pid: int
    started: str


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def descendants(pid: int) -> set[Seen]:
    """All processes below ``pid``."""
    below: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and (fields := _stat(int(path.name))):
            below.setdefault(int(fields[1]), []).append(int(path.name))
    found: set[Seen] = set()
    waiting = [pid]
    while waiting:
        for child in below.get(waiting.pop(), []):
            if fields := _stat(child):
                found.add(Seen(child, fields[19]))
                waiting.append(child)
    return found


def alive(processes: Iterable[Seen]) -> set[Seen]:
    """Those of ``processes`` that still run; one that only waits to be collected does not."""
    found = set()
    for process in processes:
        fields = _stat(process.pid)
        if fields and fields[19] == process.started and fields[0] not in "ZX":
            found.add(process)
    return found


def wait_until_gone(processes: Iterable[Seen], within_s: float) -> None:
    """Raises ``AssertionError`` that names who is left after ``within_s`` seconds."""
    deadline = time.monotonic() + within_s
    while left := alive(processes):
        if time.monotonic() > deadline:
            raise AssertionError(
                f"still running: {[(process.pid, command_line(process.pid)) for process in left]}"
            )
        time.sleep(0.02)


def command_line(pid: int) -> str:
    return _read(pid, "cmdline")


def environment(pid: int) -> str:
    return _read(pid, "environ")


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
