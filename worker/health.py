"""A sign of life for whoever looks from outside: Docker, Kubernetes, systemd.

A process that works touches HEALTH_FILE; ``python -m worker.health`` says whether it did of late. The check
imports nothing of ours, asks no broker and no other worker, so that it costs a few hundredths of a second;
``celery inspect ping`` loads the whole program each time, and answers for a worker whose clock is dead.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

LONGEST_SILENCE_S = 60.0


def touch(path: Path | None, trouble: str = "") -> None:
    """Give a sign of life, where somebody wants one, with the ``trouble`` that keeps the process from work.
    Raises nothing: a full disk must not end the work."""
    if path is not None:
        try:
            path.write_text(trouble, encoding="utf-8", errors="replace")
        except OSError:
            return


def fault(path: Path, longest_silence_s: float = LONGEST_SILENCE_S) -> str | None:
    """What is wrong with the process that touches ``path``, as one sentence, or None."""
    try:
        silent_s = time.time() - path.stat().st_mtime
    except OSError as error:
        return f"No sign of life yet: {path}: {error.strerror}."
    if silent_s > longest_silence_s:
        return f"No sign of life for {silent_s:.0f} s: {path}."
    try:
        return path.read_text(encoding="utf-8") or None
    except (OSError, ValueError) as error:
        return f"The sign of life cannot be read: {path}: {error}."


def main() -> int:
    """Exit code 0 of a process that works, 1 of one that does not, 2 where HEALTH_FILE is not set."""
    name = os.environ.get("HEALTH_FILE", "").strip()  # read as worker.settings reads it
    if not name:
        print("HEALTH_FILE is not set, here or for the process to be looked at.", file=sys.stderr)
        return 2
    found = fault(Path(name).expanduser())
    if found is not None:
        print(found, file=sys.stderr)
    return 0 if found is None else 1


if __name__ == "__main__":
    sys.exit(main())
