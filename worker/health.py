"""A sign of life for health checks by Docker, Kubernetes or systemd.

A working process touches HEALTH_FILE; ``python -m worker.health`` checks whether it did so recently. The
check imports no module of ours and asks neither the broker nor another worker, so it takes a few hundredths
of a second. ``celery inspect ping`` loads the whole program each time, and also answers for a worker whose
dispatcher is dead.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

LONGEST_SILENCE_S = 60.0


def touch(path: Path | None, trouble: str = "") -> None:
    """Write a sign of life to ``path``; do nothing if that is None.

    ``trouble``: why the process cannot work now, or "". Raises nothing: a full disk must not stop the work.
    """
    if path is not None:
        try:
            path.write_text(trouble, encoding="utf-8", errors="replace")
        except OSError:
            return


def fault(path: Path, longest_silence_s: float = LONGEST_SILENCE_S) -> str | None:
    """A sentence that says what is wrong with the process that touches ``path``; None if it works."""
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
    """The exit code: 0 if the process works, 1 if it does not, 2 if HEALTH_FILE is not set."""
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
