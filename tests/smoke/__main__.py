"""``python -m tests.smoke RELEASE...``: the scene on each of these real releases (``make smoke``)."""

from __future__ import annotations

import signal
import sys

from tests.smoke.real_release import RealRelease
from tests.smoke.verdicts import Limits, exit_code, try_releases


def main() -> int:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    candidates = [RealRelease(release) for release in sys.argv[1:]]
    return exit_code(try_releases(candidates, Limits(), lambda line: print(line, flush=True)))


sys.exit(main())
