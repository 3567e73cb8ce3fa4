"""A gateway's URL and token, cleaned once so that no later message leaks the token (rules.md 29)."""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

from worker.gateway.errors import BadAddress

_SCHEMES = {"http": "ws", "https": "wss"}
_PORTS = {"ws": 80, "wss": 443}


@dataclass(frozen=True)
class GatewayAddress:
    """A gateway's URL (ws or wss) and token.

    User information, query and fragment are removed from the URL: the token travels only in ``connect``.
    Raises `BadAddress`, whose sentence never repeats them.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    allow_insecure_tls: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", _clean(self.url))
        token = self.token.strip() if self.token else None
        object.__setattr__(self, "token", token or None)

    @property
    def token_fingerprint(self) -> str | None:
        """16 hex digits that distinguish tokens without revealing them; None without a token."""
        if self.token is None:
            return None
        return hashlib.sha256(b"openclaw-provisioner:" + self.token.encode()).hexdigest()[:16]

    @property
    def is_loopback(self) -> bool:
        """Whether the host names this machine: a loopback address, or localhost."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")

    @property
    def server(self) -> tuple[str, int, str]:
        """Host, port and path, normalised so that two URLs of one server compare equal."""
        parts = urlsplit(self.url)
        host = "localhost" if self.is_loopback else parts.hostname or ""
        return host, parts.port or _PORTS.get(parts.scheme, 0), parts.path.rstrip("/")


def _clean(url: str) -> str:
    text = (url or "").strip()
    if not text:
        raise BadAddress("the gateway has no URL: set it, as in ws://host:18789")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise BadAddress("the gateway's URL cannot be read: write it as ws://host:18789") from None
    scheme = parts.scheme.lower()
    name = f"[{host}]" if host and ":" in host else host
    place = f"{name}:{port}" if port is not None else f"{name}"
    if host and scheme in _SCHEMES:
        raise BadAddress(
            f"the gateway's URL begins with {scheme}://, a gateway's with ws:// or wss://:"
            f" write {_SCHEMES[scheme]}://{place}"
        )
    if not host or scheme not in _SCHEMES.values():
        raise BadAddress("the gateway's URL must begin with ws:// or wss://, as in ws://host:18789")
    return urlunsplit((scheme, place, parts.path, "", ""))
