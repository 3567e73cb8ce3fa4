"""What can go wrong between us and one OpenClaw gateway, each as a type of its own (rules.md 44).

The type says whether trying again can help; the sentence says what to do. `worker.gateway.error_mapping`
makes them of what a gateway says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from worker.errors import PermanentError, ProvisionerError, TransientError
from worker.printable import line

if TYPE_CHECKING:
    from worker.gateway.address import GatewayAddress


class GatewayError(ProvisionerError):
    """A gateway refused, failed or could not be reached.

    ``method``: the call it happened to; ``code`` and ``details``: the gateway's own words, where it
    sent any; ``retryable``: what the gateway said of it, None where it said nothing; ``address``: where the
    gateway was tried, None where that is not known.
    """

    address: GatewayAddress | None = None

    @property
    def may_have_had_effect(self) -> bool:
        """Whether the call had gone out and nobody knows whether it was carried out."""
        return False

    def __init__(
        self,
        message: str,
        *,
        method: str | None = None,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(line(message))
        self.method = method
        self.code = code
        self.details: Mapping[str, Any] = dict(details or {})
        self.retryable = retryable


class TransientGatewayError(GatewayError, TransientError):
    """May pass by itself; ``retry_after_s`` where the gateway said how long."""

    def __init__(self, message: str, *, retry_after_s: float | None = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.retry_after_s = retry_after_s


class PermanentGatewayError(GatewayError, PermanentError):
    """Fails again until somebody changes something."""


class GatewayUnreachable(TransientGatewayError):
    """No connection, or it broke before the call was sent: the gateway did not see the call."""


class GatewayRestarting(TransientGatewayError):
    """The gateway says that it is stopping or starting; the call was not carried out."""


class CallTimedOut(TransientGatewayError):
    """Our own deadline passed. ``sent``: whether the call had gone out, so whether it may have had effect."""

    def __init__(self, message: str, *, sent: bool = False, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.sent = sent

    @property
    def may_have_had_effect(self) -> bool:
        """See GatewayError."""
        return self.sent


class GatewaySilent(CallTimedOut):
    """Our own deadline passed, and nothing at all was heard from the gateway meanwhile: it hangs."""


class ConnectionLost(TransientGatewayError):
    """The connection ended while the call was in flight: nobody knows whether it had effect."""

    @property
    def may_have_had_effect(self) -> bool:
        """See GatewayError."""
        return True


class RateLimited(TransientGatewayError):
    """The gateway counts calls of this kind; ``retry_after_s`` says when it counts anew."""


class AuthLocked(RateLimited):
    """Too many wrong tokens came from our address, so that even the right one waits (gateways.md 4).

    Transient: it ends by itself. What is never retried is the wrong token that causes it (rules.md 44).
    """


class StaleConfig(TransientGatewayError):
    """The config changed since it was read: read it again and redo the change."""


class GatewayBusy(TransientGatewayError):
    """Too much at once for the gateway; this call may be sent again in a moment."""


class Unavailable(TransientGatewayError):
    """The gateway cannot do it now, for a reason of its own."""


class SendDenied(PermanentGatewayError):
    """The owner's session.sendPolicy lets nobody write to that session."""


class AppliedByRestart(TransientGatewayError):
    """The config was written, and the gateway is about to restart in order to apply it."""


class ConfigLocked(PermanentGatewayError):
    """Whoever runs the gateway allows no change of its config by anybody: it is kept elsewhere."""


class BadAddress(PermanentGatewayError):
    """The gateway's row holds no usable URL."""


class NotAGateway(PermanentGatewayError):
    """Something answers at the URL, but does not speak the gateway's protocol."""


class TlsRefused(PermanentGatewayError):
    """The TLS handshake failed in a way that repeating does not change."""


class WrongToken(PermanentGatewayError):
    """The gateway does not accept the token. Never retried by itself (rules.md 44)."""


class MissingScope(PermanentGatewayError):
    """Connected, but without the rights that provisioning needs. ``scope``: the missing one."""

    def __init__(self, message: str, *, scope: str | None = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.scope = scope


class PairingRequired(PermanentGatewayError):
    """An operator has to approve our device. ``request_id`` and ``device_id`` as the gateway names them."""

    def __init__(
        self,
        message: str,
        *,
        request_id: str | None = None,
        device_id: str | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(message, **fields)
        self.request_id = request_id
        self.device_id = device_id


class DeviceRefused(PermanentGatewayError):
    """The gateway does not believe our device's signature."""


class UnsupportedProtocol(PermanentGatewayError):
    """The gateway speaks none of the protocol versions that we do."""


class BadParameters(PermanentGatewayError):
    """The gateway does not take these parameters for this method."""


class FrameTooLarge(PermanentGatewayError):
    """The call is larger than the gateway's frame limit; it was not sent."""


class UnsupportedFile(PermanentGatewayError):
    """This release keeps no workspace file of that name. ``name``: the file."""

    def __init__(self, message: str, *, name: str | None = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.name = name


class UnsafeFile(TransientGatewayError):
    """The gateway does not touch a workspace file: it is being replaced at this moment, or it is a link, no
    plain file, or may not be written. Only looking tells which. ``name``: the file."""

    def __init__(self, message: str, *, name: str | None = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.name = name


class FileRefused(PermanentGatewayError):
    """A workspace file cannot be read or written until somebody changes it on the gateway's machine.
    ``name``: the file."""

    def __init__(self, message: str, *, name: str | None = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.name = name


class HostRefused(PermanentGatewayError):
    """The operating system of the gateway's machine refuses what the gateway tries, and goes on to do so."""


class InvalidConfig(PermanentGatewayError):
    """The gateway refused a config change. ``issues``: (path, message) pairs, as far as it named them."""

    def __init__(self, message: str, *, issues: tuple[tuple[str, str], ...] = (), **fields: Any) -> None:
        super().__init__(message, **fields)
        self.issues = issues


class IncludeOwned(PermanentGatewayError):
    """The gateway does not write this part of its config, because a file that it includes owns it."""


class UnknownAgent(PermanentGatewayError):
    """The gateway's roster has no such agent.

    Straight after our own create the newest releases say so wrongly (gateways.md 4): whoever created
    the agent decides to retry.
    """


class UnknownMethod(PermanentGatewayError):
    """This release has no such method."""


class AgentExists(PermanentGatewayError):
    """The roster already has an agent of that id."""


class FileConflict(PermanentGatewayError):
    """The file changed since its hash was read. ``current_hash``: the one it has now."""

    def __init__(self, message: str, *, current_hash: str | None = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.current_hash = current_hash


class Refused(PermanentGatewayError):
    """The gateway said no, in words of its own."""


class BadAnswer(PermanentGatewayError):
    """The gateway's answer is not of the protocol's shape; the call may have had effect."""

    @property
    def may_have_had_effect(self) -> bool:
        """See GatewayError."""
        return True


OUTAGES = (GatewayUnreachable, GatewayRestarting, ConnectionLost, GatewaySilent, Unavailable)
"""Errors that say something of the gateway, not of the call: one late answer among others is none."""
