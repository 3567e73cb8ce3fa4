"""Holds back devices of other machines until the owner approves them (gateways.md 1)."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

from worker.lab.simulator.connect_handshake import Grant, HandshakeRefusal
from worker.lab.simulator.refusal import JSON, Refusal
from worker.lab.simulator.release import Release


class Pairing:
    """The approved devices, kept in the state folder, and the requests that wait for approval.

    With ``remote`` every client counts as one from another machine. Otherwise all clients are local, and need
    no approval; some releases record their devices as approved.
    """

    def __init__(self, state_dir: Path, release: Release, *, remote: bool) -> None:
        self._path = state_dir / "devices" / "paired.json"
        self._release = release
        self._remote = remote
        self._pending: dict[str, str] = {}

    def settle(self, grant: Grant) -> Grant:
        """The grant for a client. Raises `HandshakeRefusal` for one that must wait for approval."""
        if not self._remote:
            if grant.device_id is not None and self._release.pairs_local_backends:
                self._approve(grant.device_id)
            return grant
        if grant.device_id is None:
            return Grant(grant.role, (), None, grant.mode)
        if grant.device_id in self._approved():
            return grant
        request_id = self._pending.setdefault(grant.device_id, str(uuid.uuid4()))
        if not self._release.explains_admission:
            raise HandshakeRefusal("pairing required", code="NOT_PAIRED", details={"requestId": request_id})
        if not self._release.explains_errors:
            details: JSON = {"code": "PAIRING_REQUIRED", "requestId": request_id, "reason": "not-paired"}
            raise HandshakeRefusal("pairing required", code="NOT_PAIRED", details=details)
        raise HandshakeRefusal(
            "pairing required: device is not approved yet",
            code="NOT_PAIRED",
            details={
                "code": "PAIRING_REQUIRED",
                "reason": "not-paired",
                "requestId": request_id,
                "deviceId": grant.device_id,
            },
        )

    def requests(self) -> JSON:
        """The answer to ``device.pair.list``."""
        return {
            "pending": [
                {"requestId": request, "deviceId": device} for device, request in self._pending.items()
            ],
            "paired": [{"deviceId": device} for device in self._approved()],
        }

    def approve(self, request_id: str) -> JSON:
        """Approve the device of a waiting request. Raises `Refusal` if there is none."""
        for device, waiting in self._pending.items():
            if waiting == request_id:
                del self._pending[device]
                self._approve(device)
                return {"requestId": request_id, "device": {"deviceId": device}}
        raise Refusal("unknown requestId")

    def approve_all(self) -> None:
        for request_id in list(self._pending.values()):
            self.approve(request_id)

    def _approve(self, device: str) -> None:
        if device not in (approved := self._approved()):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps([*approved, device]), encoding="utf-8")

    def _approved(self) -> list[str]:
        if not self._path.exists():
            return []
        approved: list[str] = json.loads(self._path.read_text(encoding="utf-8"))
        return approved
