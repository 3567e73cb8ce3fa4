"""Somebody else who edits the gateway's config meanwhile: a number that only ever grows."""

from __future__ import annotations

import json
import threading
from types import TracebackType
from typing import Self

from worker.gateway.client import GatewayClient
from worker.gateway.errors import GatewayError

KEY = "maxConcurrent"


class Outsider:
    """Sets agents.defaults.maxConcurrent to 1, 2, 3, ... every ``every_s`` seconds, as a careful client does:
    computed from what it read, sent with its hash, read back, and again where that did not hold."""

    def __init__(self, client: GatewayClient, every_s: float) -> None:
        self._client = client
        self._every_s = every_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._edit, daemon=True)
        self.value = 0
        self.raced = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()
        self._client.close()

    def _edit(self) -> None:
        while not self._stopped.wait(self._every_s):
            try:
                if self._written(self.value + 1):
                    self.value += 1
            except GatewayError:
                continue

    def _written(self, value: int) -> bool:
        """Whether the gateway took it, and says so when asked again. Raises GatewayError: nobody knows."""
        config = self._client.call("config.get")
        stood = config["parsed"].get("agents", {}).get("defaults", {}).get(KEY, 0)
        if stood < self.value:
            self.raced += 1
        if stood >= value:
            return True
        raw = json.dumps({"agents": {"defaults": {KEY: value}}})
        self._client.call("config.patch", {"raw": raw, "baseHash": config["hash"], "restartDelayMs": 0})
        return False
