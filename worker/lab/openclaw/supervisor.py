"""Restarts a gateway that has ended, as systemd and Docker do (``restart: unless-stopped``).

Gateways rely on that. Up to 2026.3 a connection that is let in while a restart closes all others is never
closed, and holds the restart up: 35 s later 2026.2.12 ends with code 0, 95 s later 2026.3.13 with code 1.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from worker.lab.servers.supervised_process import SupervisedProcess

AGAIN_AFTER_S = 1.0
_LOOK_EVERY_S = 0.1


class Supervisor:
    """Watches ``process`` until `end`; ``again_after_s`` seconds after it has ended, ``launch`` starts the
    next.

    ``comebacks``: the exit codes of the processes that were replaced, 128 + n for signal n.
    """

    def __init__(
        self,
        process: SupervisedProcess,
        launch: Callable[[int], SupervisedProcess],
        *,
        again_after_s: float = AGAIN_AFTER_S,
    ) -> None:
        """``launch`` is called with the exit code, in a thread of ours."""
        self._process = process
        self._launch = launch
        self._again_after_s = again_after_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self.comebacks: list[int] = []
        self._thread.start()

    def end(self) -> None:
        """Start no further process once this returns; a running one is left alone."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_EVERY_S):
            code = self._process.poll()
            if code is None:
                continue
            if self._over.wait(self._again_after_s):
                return
            self._process = self._launch(code)
            self.comebacks.append(code)
