"""Records which ids a gateway has deleted; 2026.9.6 fences these until agents.create claims them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

RECOVERY = (
    "config.patch persisted and updated the active Gateway, but a recovery restart is required; wait for the"
    " Gateway to restart, then run config.get to confirm the active revision"
)


class Deletions:
    """The deleted ids, in a journal in the state folder, which stays empty if the release keeps none."""

    def __init__(self, state_dir: Path, *, kept: bool) -> None:
        self._path = state_dir / "deleted-agents.json"
        self._kept = kept

    def fenced(self) -> set[str]:
        """The ids that run no heartbeats, whatever the config says."""
        return set(json.loads(self._path.read_text(encoding="utf-8"))) if self._path.exists() else set()

    def note(self, agent_id: str) -> None:
        if self._kept:
            self._store(self.fenced() | {agent_id})

    def claim(self, agent_id: str) -> None:
        """Lift the fence of an id."""
        if agent_id in self.fenced():
            self._store(self.fenced() - {agent_id})

    def _store(self, ids: Iterable[str]) -> None:
        self._path.write_text(json.dumps(sorted(ids)), encoding="utf-8")
