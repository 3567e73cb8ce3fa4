"""Owns a local stack until it is killed: ``python -m tests.integration.lab.servers.owner_process FOLDER``.

It prints one JSON line when the stack is up. ``--thread``: started from a thread that then ends. ``--fork``:
a forked child lives on and keeps all of the owner's descriptors open.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

from worker.lab.servers import LocalServices


def main() -> None:
    services = LocalServices(Path(sys.argv[1]), durable=False)
    if "--thread" in sys.argv:
        thread = threading.Thread(target=services.start)
        thread.start()
        thread.join()
    else:
        services.start()
    fork = os.fork() if "--fork" in sys.argv else None
    if fork == 0:
        signal.pause()
    answer = {
        "database_url": services.database_url,
        "redis_url": services.redis_url,
        "fork": fork,
        "servers": [services.postgres.pid, services.valkey.pid],
    }
    print(json.dumps(answer), flush=True)
    # Ends with an exception on SIGINT and with nothing on SIGTERM and SIGKILL, as most programs do.
    signal.pause()


if __name__ == "__main__":
    main()
