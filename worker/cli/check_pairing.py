"""doctor and ``device show``: does a gateway know our device, or let it in for another reason?"""

from __future__ import annotations

from worker.cli.findings import Finding
from worker.gateway.answers import Answer
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
        payload = connection.call(_LIST, deadline_s=CALL_S)
        devices = Answer(payload, f"the gateway at {connection.address.url}", _LIST).records("paired")
    except PermanentGatewayError:
        return None
    return any(device.value.get("deviceId") == device_id for device in devices)


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
