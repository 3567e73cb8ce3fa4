"""Which addresses a webhook may have: its URL, and the IP addresses that its host resolves to.

Whoever adds a webhook chooses where a worker connects to. So the host is resolved once, private addresses are
refused, and the connection goes to the address that was checked (`worker.webhooks.post`).
"""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any
from urllib.parse import SplitResult, urlsplit

from worker.errors import PermanentError

LONGEST_URL = 2000
RESOLVE_S = 10.0
"""Limit on resolving a host, in seconds."""
Networks = Sequence[IPv4Network | IPv6Network]
_Ip = IPv4Address | IPv6Address
_NAT64 = IPv6Network("64:ff9b::/96")


class WebhookUrlError(PermanentError):
    """A URL that no webhook can have."""


class AddressRefusedError(PermanentError):
    """A host that no worker may connect to, or that has no address."""


def check_url(url: str) -> SplitResult:
    """Return the parts of an https URL with a host. Raises WebhookUrlError, which does not show the URL."""
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isascii() or not url.isprintable() or " " in url or len(url) > LONGEST_URL:
        raise WebhookUrlError(
            "A webhook's URL needs a host, printable ASCII characters alone, and at most"
            f" {LONGEST_URL} of them."
        )
    if parts.scheme != "https":
        raise WebhookUrlError(
            "A webhook's URL must begin with https://, so that nobody on the way can read it."
        )
    if "@" in parts.netloc or parts.fragment:
        raise WebhookUrlError(
            "A webhook's URL holds no user, password or fragment: receivers check the signature."
        )
    return parts


def read_networks(given: str) -> Networks:
    """The networks of WEBHOOK_ALLOWED_NETWORKS, separated by commas or blanks. Raises ValueError."""
    return [ip_network(one) for one in given.replace(",", " ").split()]


def resolve(host: str, port: int, allowed: Networks) -> Sequence[str]:
    """The IP addresses of the host that a worker may connect to, in the order in which to try them.

    Raises AddressRefusedError if there is none, or if the system's resolver takes longer than RESOLVE_S.
    """
    try:
        found = _look_up(host, port)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise AddressRefusedError(f"The host {host} cannot be resolved ({why}).") from None
    addresses = list(dict.fromkeys(str(address[0]).partition("%")[0] for *_, address in found))
    usable = [address for address in addresses if is_allowed(ip_address(address), allowed)]
    if not usable:
        raise AddressRefusedError(
            f"The host {host} has only private addresses ({', '.join(addresses[:3])}): use a public one, or"
            " name its network in WEBHOOK_ALLOWED_NETWORKS."
        )
    return usable


def _look_up(host: str, port: int) -> Sequence[Any]:
    """What getaddrinfo answers. It takes no timeout, so it runs in a thread that is left to itself if it
    takes too long. Raises OSError, UnicodeError."""
    answer: queue.SimpleQueue[Sequence[Any] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answer.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:
            answer.put(error)

    threading.Thread(target=ask, name="resolver", daemon=True).start()
    try:
        found = answer.get(timeout=RESOLVE_S)
    except queue.Empty:
        raise TimeoutError(0, f"no answer from the resolver within {RESOLVE_S:g} seconds") from None
    if isinstance(found, Exception):
        raise found
    return found


def is_allowed(address: _Ip, allowed: Networks) -> bool:
    """Whether a worker may connect to the address: it is in one of the networks, or it is public. Loopback,
    private, link-local, shared, multicast and reserved addresses are not public, however they are written."""
    inner = _inner(address)
    if any(
        one in network for one in {address, inner} for network in allowed if one.version == network.version
    ):
        return True
    site_local = isinstance(inner, IPv6Address) and inner.is_site_local
    return inner.is_global and not (inner.is_multicast or inner.is_reserved or site_local)


def _inner(address: _Ip) -> _Ip:
    """The IPv4 address that an IPv6 one stands for, else the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo is not None else address)
