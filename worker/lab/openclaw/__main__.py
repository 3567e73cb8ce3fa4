"""``python -m worker.lab.openclaw RELEASE...`` installs these releases.

Exit codes: 3 the npm registry refused one, 4 npm failed, 1 any other failure.
"""

from __future__ import annotations

import sys

from worker.lab.openclaw.install import InstallFailed, NpmFailed, OpenClaw, RegistryRefused

REGISTRY_REFUSED, NPM_FAILED = 3, 4


def main() -> int:
    for release in sys.argv[1:]:
        try:
            OpenClaw.install(release, progress=lambda line: print(line, flush=True))
        except InstallFailed as error:
            print(error, file=sys.stderr)
            if isinstance(error, RegistryRefused):
                return REGISTRY_REFUSED
            return NPM_FAILED if isinstance(error, NpmFailed) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
