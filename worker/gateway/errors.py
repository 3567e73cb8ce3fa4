"""The errors between a worker and an OpenClaw gateway (rules.md 44).

An error's base class says whether a retry can help; its sentence says what went wrong and what to do. A
failure has a class of its own only if some code treats it differently. `worker.gateway.error_mapping` turns a
gateway's refusal into one of these.
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

    ``method``: the call that failed. ``code`` and ``details``: the gateway's own, if it sent any.
    ``retryable``: what the gateway said about retrying; None if it said nothing. ``address``: where the
    gateway was tried; None if that is not known.
    """

    address: GatewayAddress | None = None

    @property
    def may_have_had_effect(self) -> bool:
        """Whether the call was sent and may have been carried out."""
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
    """The failure may pass. ``retry_after_s``: how long the gateway asked us to wait, if it did."""

    def __init__(self, message: str, *, retry_after_s: float | None = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.retry_after_s = retry_after_s


class PermanentGatewayError(GatewayError, PermanentError):
    """The call fails again until a person changes something."""

    reason_code = "gateway_refused"


class GatewayUnreachable(TransientGatewayError):
    """There is no connection, or it broke before the call was sent: the gateway did not see the call."""

    reason_code = "waiting_for_gateway"


class GatewayRestarting(TransientGatewayError):
    """The gateway reports that it is stopping or starting; the call was not carried out."""

    reason_code = "waiting_for_gateway"


class CallTimedOut(TransientGatewayError):
    """We stopped waiting for the gateway: the deadline or a limit of `worker.gateway.idle_timeout` passed.

    ``sent``: whether the call was sent and so may have been carried out.
    """

    def __init__(self, message: str, *, sent: bool = False, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.sent = sent

    @property
    def may_have_had_effect(self) -> bool:
        """See GatewayError."""
        return self.sent


class GatewaySilent(CallTimedOut):
    """We stopped waiting for a gateway that has sent nothing at all for some time: it hangs."""

    reason_code = "waiting_for_gateway"


class ConnectionLost(TransientGatewayError):
    """The connection ended while the call was in flight; the call may have been carried out."""

    reason_code = "waiting_for_gateway"

    @property
    def may_have_had_effect(self) -> bool:
        """See GatewayError."""
        return True


class RateLimited(TransientGatewayError):
    """The gateway limits calls of this kind, or locks out our address after too many wrong tokens.

    ``retry_after_s`` says for how long (gateways.md 4).
    """

    reason_code = "rate_limited"


class StaleConfig(TransientGatewayError):
    """The config changed after it was read: read it again and redo the change."""


class Unavailable(TransientGatewayError):
    """The gateway reports a failure that may pass and that no other class stands for."""

    reason_code = "waiting_for_gateway"


class SendDenied(PermanentGatewayError):
    """The owner's session.sendPolicy forbids writing to that session."""


class AppliedByRestart(TransientGatewayError):
    """The config was written, and the gateway is about to restart to apply it."""


class BadAddress(PermanentGatewayError):
    """The gateway's row has no usable URL."""


class WrongToken(PermanentGatewayError):
    """The gateway does not accept the token. Never retried automatically (rules.md 44)."""


class PairingRequired(PermanentGatewayError):
    """An operator has to approve our device. ``request_id`` and ``device_id``: as the gateway names them."""

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


class UnsupportedFile(PermanentGatewayError):
    """This release has no workspace file of that name. ``name``: the file."""

    def __init__(self, message: str, *, name: str | None = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.name = name


class UnsafeFile(TransientGatewayError):
    """The gateway refuses to touch a workspace file. ``name``: the file.

    Either the file is being replaced at this moment, or it is a link, not a plain file, or not writable. Only
    another attempt tells which.
    """

    def __init__(self, message: str, *, name: str | None = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.name = name


class FileRefused(PermanentGatewayError):
    """A workspace file cannot be read or written until it is changed on the gateway's machine.

    ``name``: the file.
    """

    def __init__(self, message: str, *, name: str | None = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.name = name


class InvalidConfig(PermanentGatewayError):
    """The gateway rejected a config change. ``issues``: (path, message) pairs, as far as it named them."""

    def __init__(self, message: str, *, issues: tuple[tuple[str, str], ...] = (), **fields: Any) -> None:
        super().__init__(message, **fields)
        self.issues = issues


class IncludeOwned(PermanentGatewayError):
    """The gateway does not write this part of its config, because an included file owns it."""


class UnknownAgent(PermanentGatewayError):
    """The gateway's roster has no such agent.

    Right after an agent was created, the newest releases raise this by mistake (gateways.md 4); the caller
    that created it decides whether to retry.
    """


class UnknownSetting(PermanentGatewayError):
    """The config of this release has no such setting."""


class AgentExists(PermanentGatewayError):
    """The roster already has an agent of that id."""


class FileConflict(PermanentGatewayError):
    """The file changed after its hash was read. ``current_hash``: its hash now."""

    def __init__(self, message: str, *, current_hash: str | None = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.current_hash = current_hash


class Refused(PermanentGatewayError):
    """The gateway refused for a reason that no other class stands for."""


class BadAnswer(PermanentGatewayError):
    """The gateway's answer does not follow the protocol; the call may have been carried out."""

    @property
    def may_have_had_effect(self) -> bool:
        """See GatewayError."""
        return True


OUTAGES = (GatewayUnreachable, GatewayRestarting, ConnectionLost, GatewaySilent, Unavailable)
"""Errors about the gateway rather than about one call; a single late answer is not one of them."""
