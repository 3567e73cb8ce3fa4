"""One HTTPS POST to a webhook, to an address that was checked, within ten seconds.

http.client and ssl do it. The well-known libraries resolve the host again when they connect, unless one
replaces a part of them that is not meant for it; here it takes one method. No redirect is followed, no proxy
variable is heeded, and nothing of the answer is read beyond its headers.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http.client import HTTPException, HTTPSConnection

from worker.errors import TransientError
from worker.webhooks.addresses import AddressRefusedError, Networks, WebhookUrlError, check_url, resolve

TIMEOUT_S = 10.0
_MOST_ASKED_S = 3600.0
_GONE = 410


class PostFailedError(TransientError):
    """The webhook did not accept the message; the sentence says why. ``answer``: the status of its answer, if
    there was one; ``gone``: it wants no more."""

    def __init__(
        self, message: str, *, answer: int | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.answer = answer
        self.gone = answer == _GONE


def post(
    url: str, headers: Mapping[str, str], body: bytes, allowed: Networks, timeout_s: float = TIMEOUT_S
) -> int:
    """POST the body; return the status of the answer, which is from 200 to 299. Raises PostFailedError."""
    try:
        parts = check_url(url)
        host, port = parts.hostname or "", parts.port or 443
        addresses = resolve(host, port, allowed)
    except (WebhookUrlError, AddressRefusedError) as error:
        raise PostFailedError(str(error)) from None
    connection = _PinnedConnection(addresses, host, port, timeout_s)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    ours = {"User-Agent": "openclaw-provisioner", "Connection": "close"}
    try:
        connection.request("POST", path, body, {**ours, **headers})
        with connection.getresponse() as response:
            answer, retry_after = response.status, response.getheader("Retry-After")
        if connection.expired:  # http.client takes headers that are cut off for all of them
            raise TimeoutError
    except (OSError, HTTPException, ValueError) as error:
        raise PostFailedError(_why(error, host, connection.expired, timeout_s)) from None
    finally:
        connection.close()
    if 300 <= answer < 400:
        raise PostFailedError(
            f"{host} answered {answer}, and redirects are not followed: give the webhook the address where it"
            " is now.",
            answer=answer,
        )
    if not 200 <= answer < 300:
        raise PostFailedError(
            f"{host} answered {answer}.", answer=answer, retry_after_s=_seconds(retry_after)
        )
    return answer


class _PinnedConnection(HTTPSConnection):
    """A connection to the first of ``addresses`` that accepts one. It verifies the certificate of ``host``,
    and ends after ``timeout_s`` however slowly the other side sends."""

    def __init__(self, addresses: Sequence[str], host: str, port: int, timeout_s: float) -> None:
        self._tls = ssl.create_default_context()
        super().__init__(host, port, timeout=timeout_s, context=self._tls)
        self._addresses = addresses
        self._until = time.monotonic() + timeout_s
        self._alarm: threading.Timer | None = None
        self.expired = False

    def connect(self) -> None:
        plain = self._connected()
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host, do_handshake_on_connect=False)
        self._alarm = threading.Timer(self._left_s, self._expire)
        self._alarm.daemon = True
        self._alarm.start()
        self.sock.do_handshake()

    def close(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        super().close()

    @property
    def _left_s(self) -> float:
        return max(self._until - time.monotonic(), 0.001)

    def _connected(self) -> socket.socket:
        for address in self._addresses[:-1]:
            with suppress(OSError):
                return socket.create_connection((address, self.port), timeout=self._left_s)
        return socket.create_connection((self._addresses[-1], self.port), timeout=self._left_s)

    def _expire(self) -> None:
        # A socket's own timeout is for each read: a byte every nine seconds would hold the thread for hours.
        self.expired = True
        with suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


def _why(error: Exception, host: str, expired: bool, timeout_s: float) -> str:
    if expired or isinstance(error, TimeoutError):
        return f"{host} did not answer within {timeout_s:g} seconds."
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"The certificate of {host} cannot be verified: {error.verify_message}."
    if isinstance(error, ssl.SSLError):
        return f"{host} does not speak TLS as we do ({error.reason or type(error).__name__})."
    if isinstance(error, OSError) and not isinstance(error, HTTPException):
        return f"{host} cannot be reached ({error.strerror or type(error).__name__})."
    return f"{host} did not answer in HTTP ({type(error).__name__})."


def _seconds(header: str | None) -> float | None:
    """The seconds of a Retry-After header, an hour at most; None for anything else, such as a date."""
    if header is None or not header.strip().isdecimal():
        return None
    return min(float(header), _MOST_ASKED_S)
