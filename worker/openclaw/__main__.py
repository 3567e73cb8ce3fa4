"""``python -m worker.openclaw RELEASE...`` installs. Exit code: 1 failed, 3 the registry refused."""

from __future__ import annotations

import sys

from worker.openclaw.install import InstallFailed, OpenClaw, RegistryRefused


def main() -> int:
    for release in sys.argv[1:]:
        try:
            OpenClaw.install(release, progress=lambda line: print(line, flush=True))
        except InstallFailed as error:
            print(error, file=sys.stderr)
            return 3 if isinstance(error, RegistryRefused) else 1
    return 0


sys.exit(main())
