"""Which processes belong to a run: those that name its temporary folder."""

from __future__ import annotations

import time
from pathlib import Path

GONE_WITHIN_S = 15.0


def processes_of(folder: Path) -> dict[int, str]:
    """Command lines by pid of all living processes that name ``folder``, or have it as working folder."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            place = str((entry / "cwd").readlink())
        except OSError:
            continue
        if command and (str(folder) in command or place.startswith(str(folder))):
            found[int(entry.name)] = command
    return found


def wait_until_none(folder: Path) -> dict[int, str]:
    """What is left of them after they had time to end; empty is good."""
    until = time.monotonic() + GONE_WITHIN_S
    while (left := processes_of(folder)) and time.monotonic() < until:
        time.sleep(0.05)
    return left
