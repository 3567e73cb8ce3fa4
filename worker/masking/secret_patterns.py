"""Hides what looks like a secret, known or not: assignments, headers, addresses, keys, hashes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from worker.masking.known_secrets import replaced
from worker.masking.named_secrets import Found, named_secrets
from worker.masking.word_shapes import is_minted_token, is_ordinary, is_random, is_reference, minted_tokens

_ARMOUR = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----")
_ARMOUR_END = "-----END"
_WELL_KNOWN = re.compile(
    r"pbkdf2_sha(?:1|256|512)\$[0-9]{1,9}+\$[\w+/=.-]++(?:\$[\w+/=.-]++)?"
    r"|\$(?:2[abxy]|argon2(?:id|i|d)|scrypt|pbkdf2[a-z0-9-]{0,10}|[1567y])\$[A-Za-z0-9./,=$+_-]{16,}+"
    r"|(?<![A-Za-z0-9_-])(?:sk-[\w-]{16,}+|gh[opsru]_[A-Za-z0-9]{20,}+|github_pat_\w{20,}+|glpat-[\w-]{16,}+"
    r"|xox[abeprs]-[A-Za-z0-9-]{10,}+|AKIA[0-9A-Z]{16}|AIza[\w-]{30,}+|hf_[A-Za-z0-9]{20,}+|npm_[A-Za-z0-9]{30,}+"
    r"|eyJ[\w-]{8,}+\.[\w-]{8,}+\.[\w-]{8,}+|(?P<ours>[A-Za-z0-9_-]{43})(?![A-Za-z0-9_-]))",
    re.ASCII,
)
_WITHOUT_PATHS = re.compile(r"(?:postgres|redis|mysql|mongo|amqp|valkey)[a-z+0-9]{0,12}$", re.IGNORECASE)
"""Schemes whose addresses have no @ in their path."""
_EXAMPLES = ("password", "PASSWORD", "pass", "pw")
_AUTHORITY = re.compile(r"[^\s'\"`<>\\]*+")


def mask_patterns(text: str, mask: str) -> str:
    """``text`` with everything that looks like a secret replaced by ``mask``."""
    spans = sorted((each.start, each.end) for each in _all_in(text) if text[each.start : each.end] != mask)
    return replaced(text, spans, mask)


def mask_minted(text: str, mask: str) -> str:
    """``text`` with ``mask`` in place of each word that has the form of a token of ours, anybody's."""
    return replaced(text, minted_tokens(text), mask)


def secrets_in(text: str, shortest: int = 8) -> set[str]:
    """The secrets that ``text`` itself marks as such, as in ``AUTH_TOKEN=...``.

    They must be hidden wherever else they occur, so ordinary words are left out, and values of fewer than
    ``shortest`` characters.
    """
    found = (text[each.start : each.end] for each in _all_in(text) if each.named)
    return {value for value in found if len(value) >= shortest and not is_ordinary(value)}


def _all_in(text: str) -> Iterator[Found]:
    yield from _armoured(text)
    for match in _WELL_KNOWN.finditer(text):
        if match["ours"] is None or is_minted_token(match["ours"]):
            yield Found(match.start(), match.end(), False)
    yield from _in_addresses(text)
    yield from named_secrets(text)


def _armoured(text: str) -> Iterator[Found]:
    """The content of each private key, up to its end marker or the end of the text."""
    at = 0
    while (armour := _ARMOUR.search(text, at)) is not None:
        end = text.find(_ARMOUR_END, armour.end())
        at = len(text) if end < 0 else end
        yield Found(armour.end(), at, False)


def _in_addresses(text: str) -> Iterator[Found]:
    """The password in ``scheme://user:password@host``, or a user name that is a token."""
    at = text.find("://")
    while at >= 0:
        address = _AUTHORITY.match(text, at + 3)
        assert address is not None
        start, end = address.span()
        slash = min((place for mark in "/?#" if (place := text.find(mark, start, end)) >= 0), default=end)
        at_sign = text.rfind("@", start, slash)
        colon = text.find(":", start, slash if at_sign < 0 else at_sign)
        password_is_cut = at_sign < 0 and not text[colon + 1 : slash].isdigit()
        if colon >= 0 and (password_is_cut or _WITHOUT_PATHS.search(text[max(0, at - 20) : at])):
            at_sign = text.rfind("@", start, end)  # the password may hold an unescaped @, / or ?
        password = text[colon + 1 : min(at_sign, colon + 600)]
        if 0 <= colon < at_sign - 1 and not is_reference(password) and password not in _EXAMPLES:
            yield Found(colon + 1, at_sign, True)
        elif colon < 0 <= at_sign and is_random(text[start:at_sign], 12):
            yield Found(start, at_sign, True)
        at = text.find("://", max(end, at + 3))
