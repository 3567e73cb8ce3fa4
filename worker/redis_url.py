"""Parses and checks REDIS_URL. A TLS server's certificate is verified unless the URL says otherwise."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from worker.urls import ServerUrl, split_url, unknown_option

_DEFAULT_PORT = 6379
_REQUIREMENTS = {
    "required": ssl.CERT_REQUIRED,
    "optional": ssl.CERT_OPTIONAL,
    "none": ssl.CERT_NONE,
    "CERT_REQUIRED": ssl.CERT_REQUIRED,
    "CERT_OPTIONAL": ssl.CERT_OPTIONAL,
    "CERT_NONE": ssl.CERT_NONE,
}
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
OPTIONS = [*_FILES, "ssl_cert_reqs", "ssl_check_hostname"]


@dataclass(frozen=True)
class Broker:
    """How to connect to the broker. ``tls``: redis-py's arguments for TLS; None without TLS."""

    host: str
    port: int
    database: int
    user: str | None
    password: str | None = field(repr=False)
    tls: dict[str, Any] | None

    @property
    def url(self) -> str:
        """The URL for Celery. It has no options, since Celery has a separate setting for TLS."""
        user = quote(self.user or "", safe="")
        password = f":{quote(self.password, safe='')}" if self.password else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        who = f"{user}{password}@" if user or password else ""
        return f"{'rediss' if self.tls else 'redis'}://{who}{host}:{self.port}/{self.database}"


def read_redis_url(text: str, password: str | None = None) -> Broker:
    """Parse REDIS_URL; ``password`` is used if the URL holds none.

    Raises ValueError, whose message quotes nothing from the URL except the names of its options.
    """
    if not text.startswith(("redis://", "rediss://")):
        raise ValueError("must begin with redis:// or rediss://")
    parts = split_url(text)
    if len(parts.places) != 1 or not parts.places[0].host:
        raise ValueError("names no host, or several: write one, as in redis://:password@host:6379/0")
    if not re.fullmatch(r"[0-9]{0,5}", parts.path):
        raise ValueError("names a database that is no number: write it as in redis://:password@host:6379/0")
    password = parts.password or password
    if parts.user is not None and not password:
        raise ValueError("holds a user name without a password: write redis://:password@host:6379/0")
    (place,) = parts.places
    return Broker(
        place.host, place.port or _DEFAULT_PORT, int(parts.path or 0), parts.user, password, _tls(parts)
    )


def _tls(parts: ServerUrl) -> dict[str, Any] | None:
    options: dict[str, Any] = {}
    for name, value in parts.options:
        if name not in OPTIONS:
            raise unknown_option(name, OPTIONS)
        if name in options:
            raise ValueError(f"holds the option `{name}` twice")
        if value:
            options[name] = _value(name, value)
    if parts.scheme == "redis":
        if options:
            raise ValueError(f"holds the option `{min(options)}`, which wants TLS: begin it with rediss://")
        return None
    options.setdefault("ssl_cert_reqs", ssl.CERT_REQUIRED)
    unverified = options["ssl_cert_reqs"] == ssl.CERT_NONE
    if unverified and options.get("ssl_check_hostname"):
        raise ValueError(
            "holds ssl_check_hostname=true, which needs a verified certificate: leave out ssl_cert_reqs=none"
        )
    _check_client_certificate(options)
    return {
        "ssl_check_hostname": not unverified,
        **options,
        **({"ssl_check_hostname": False} if unverified else {}),
    }


def _check_client_certificate(options: dict[str, Any]) -> None:
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise ValueError("holds the option `ssl_keyfile` without `ssl_certfile`")
    if "ssl_certfile" not in options:
        return
    try:
        # For a key with a passphrase, OpenSSL would prompt on the terminal.
        ssl.create_default_context().load_cert_chain(
            options["ssl_certfile"], options.get("ssl_keyfile"), password=lambda: ""
        )
    except OSError:
        raise ValueError(
            "holds the options `ssl_certfile` and `ssl_keyfile`, whose files are no certificate and its key"
            " without a passphrase"
        ) from None


def _value(name: str, value: str) -> Any:
    if name == "ssl_cert_reqs":
        if value not in _REQUIREMENTS:
            raise ValueError("holds the option `ssl_cert_reqs`, which is one of required, optional, none")
        return _REQUIREMENTS[value]
    if name == "ssl_check_hostname":
        if value.lower() not in ("true", "false"):
            raise ValueError("holds the option `ssl_check_hostname`, which is true or false")
        return value.lower() == "true"
    try:
        Path(value).read_bytes()
        if name == "ssl_ca_certs":
            ssl.create_default_context(cafile=value)
    except OSError as error:  # includes ssl.SSLError, for a file without a certificate
        why = "holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise ValueError(f"holds the option `{name}`, whose file cannot be used ({why})") from None
    return value
