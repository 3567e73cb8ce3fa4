"""Parses a server's URL strictly, and never quotes any of it, because any part may be a piece of a password.

Lenient parsers take ``user:pa@ss@host`` for a host called ``ss@host``, show it in their errors, and let the
program start although it cannot reach its server.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

ENCODE = (
    "write the special characters of its user name and password percent-encoded"
    " (`@` is %40, `:` %3A, `/` %2F, `?` %3F, `#` %23, `[` %5B, `]` %5D, `%` %25)"
)

_RAW = re.compile(r"[:/?#\[\]@\x00-\x1f\x7f]|%(?![0-9A-Fa-f]{2})")
"""Characters that a user name or password must not contain unencoded."""
_HOST = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%25[\w.-]+)?)\]|(?P<name>(?:[\w.-]|%[0-9A-Fa-f]{2})*))(?::(?P<port>.*))?"
)
_PORTS = range(1, 65536)


@dataclass(frozen=True)
class Place:
    """A host and its port in a URL: ``host`` is "" and ``port`` None if the URL names none."""

    host: str
    port: int | None


@dataclass(frozen=True)
class ServerUrl:
    """A URL's parts, decoded. ``path`` is without its first slash."""

    scheme: str
    user: str | None
    password: str | None
    places: tuple[Place, ...]
    path: str
    options: tuple[tuple[str, str], ...]


def split_url(text: str) -> ServerUrl:
    """Split a URL into its parts. Raises ValueError, whose message quotes nothing from the URL."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        raise ValueError("is no URL: it needs a scheme, :// and a host")
    if "#" in rest:
        raise ValueError(f"holds an unencoded #: {ENCODE}")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    user_info, at, places = authority.rpartition("@")
    if "@" in user_info or "@" in path or ("@" in query and authority and not at):
        raise ValueError(f"holds an unencoded @, / or ? in its user name or password: {ENCODE}")
    user, colon, password = user_info.partition(":")
    if _RAW.search(user) or _RAW.search(password):
        raise ValueError(f"holds an unencoded special character in its user name or password: {ENCODE}")
    return ServerUrl(
        scheme,
        _decoded(user) or None,
        _decoded(password) if colon and password else None,
        tuple(_place(place) for place in places.split(",")),
        _path(path),
        _options(query),
    )


def _place(text: str) -> Place:
    found = _HOST.fullmatch(text)
    if found is None:
        raise ValueError(f"holds no host that can be read: check it, and {ENCODE}")
    port = found["port"]
    if port is None:
        return Place(_host(found), None)
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) not in _PORTS:
        raise ValueError(f"has a port that is no number from 1 to 65535: check it, and {ENCODE}")
    return Place(_host(found), int(port))


def _host(found: re.Match[str]) -> str:
    host = _decoded(found["v6"] or found["name"])
    if re.search(r"[\s\x00-\x1f\x7f]", host):
        raise ValueError(f"holds a blank in its host: check it, and {ENCODE}")
    return host


def _decoded(text: str) -> str:
    """``text`` with its percent-encoding decoded.

    Raises ValueError for text that is not UTF-8 or holds a NUL, at which the driver would stop reading, and
    so connect to some other server.
    """
    try:
        plain = unquote(text, errors="strict")
        plain.encode()
    except UnicodeError:
        raise ValueError("holds an escape or a character that is no UTF-8") from None
    if "\x00" in plain:
        raise ValueError("holds a NUL character (%00)")
    return plain


def _path(text: str) -> str:
    if re.search(r"[\s\x00-\x1f\x7f/]", text):
        raise ValueError(f"holds a blank or a second slash after the host: check it, and {ENCODE}")
    return _decoded(text)


def _options(query: str) -> tuple[tuple[str, str], ...]:
    if not query:
        return ()
    try:
        options = tuple(parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict"))
    except ValueError:
        raise ValueError(
            f"holds options that cannot be read: write them as `?name=value&name=value`, and {ENCODE}"
        ) from None
    if any("\x00" in part for option in options for part in option):
        raise ValueError("holds a NUL character (%00)")
    return options


def unknown_option(name: str, known: list[str]) -> ValueError:
    """The error for an option that is not in ``known``; it quotes only what looks like an option's name."""
    if re.fullmatch(r"[a-z][a-z_]{2,30}", name):
        return ValueError(f"holds the unknown option `{name}`: there are {', '.join(known)}")
    return ValueError(f"holds an unknown option: there are {', '.join(known)}; and {ENCODE}")
