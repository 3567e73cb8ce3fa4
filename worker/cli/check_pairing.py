"""doctor and ``device show``: does a gateway know our device, or let it in for another reason?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worker.cli.findings import Finding
from worker.gateway.connection import GatewayConnection
from worker.gateway.errors import PermanentGatewayError

CALL_S = 15.0
_LIST = "device.pair.list"


def paired(connection: GatewayConnection, device_id: str) -> bool | None:
    """Whether the gateway has the device on its list; None where it does not say. It has let us in either
    way: the newest release admits a backend on its own machine without pairing. Raises TransientError."""
    if _LIST not in connection.hello.methods:
        return None
    try:
        answer = connection.call(_LIST, deadline_s=CALL_S)
    except PermanentGatewayError:
        return None
    return any(_id(one) == device_id for one in answer.get("paired") or ())


def pairing_finding(is_paired: bool | None) -> Finding:
    """What that means."""
    if is_paired is None:
        return Finding("pairing", "ok", "let in; this gateway does not say whether our device is paired")
    if is_paired:
        return Finding("pairing", "ok", "our device is paired")
    says = (
        "let in without being paired, as this gateway does from its own machine; from another one it will"
        " want the device approved: `openclaw devices approve` there"
    )
    return Finding("pairing", "ok", says)


def _id(device: Any) -> Any:
    return device.get("deviceId") if isinstance(device, Mapping) else None
