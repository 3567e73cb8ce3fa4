"""Mints and hashes an agent's token, and finds it in a live file."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator, Sequence

from worker.errors import PermanentError

PLACEHOLDER = "@@AUTH-TOKEN-IS-PUT-IN-HERE@@"
"""Stands for the token in a rendering, which can therefore be hashed and kept (decisions.md D2)."""

ROUNDS = 200_000
"""PBKDF2 rounds of new hashes. A stored hash contains its own number of rounds (rules.md 23)."""
_MOST_ROUNDS = 2_000_000  # a forged hash must not cost minutes of CPU
_HASH = re.compile(r"pbkdf2_sha256\$([0-9]{1,9})\$([A-Za-z0-9_-]+)\$([A-Za-z0-9_-]+)", re.ASCII)
_PUTTABLE = re.compile(r"[A-Za-z0-9._~+/=:-]+", re.ASCII)

_SEARCHED = 512 * 1024
"""How many characters at either end of a longer text are searched for a token."""
_UNSEEN = re.compile("[\ufeff\u200b-\u200f\u2060\u00ad]")
_MARKS = "`*'\"\u2018\u2019\u201c\u201d"
_BULLETS = "-*+\u2022"
_BLANKS = " \t"
_CLOSING = {"'": "'", '"': '"', "`": "`", "\u2018": "\u2019", "\u201c": "\u201d"}


def mint_token() -> str:
    """Mint a token: 32 random bytes as urlsafe base64 without padding (rules.md 23)."""
    return secrets.token_urlsafe(32)


def hash_token(token: str) -> str:
    """Hash ``token`` as ``pbkdf2_sha256$200000$<salt>$<digest>``, with a new salt each time (rules.md 23).

    Takes 0.1 s.
    """
    salt = secrets.token_bytes(16)
    return f"pbkdf2_sha256${ROUNDS}${_b64(salt)}${_b64(_digest(token, salt, ROUNDS))}"


def verify_token(token: str, stored: str | None) -> bool:
    """Whether ``stored`` is a hash of ``token`` (rules.md 23). False if the hash is missing or malformed."""
    match = _HASH.fullmatch(stored or "")
    if match is None or not token:
        return False
    iterations = int(match[1])
    salt, digest = _unb64(match[2]), _unb64(match[3])
    if salt is None or digest is None or not 1 <= iterations <= _MOST_ROUNDS:
        return False
    return hmac.compare_digest(_digest(token, salt, iterations), digest)


def with_token(text: str, token: str) -> str:
    """``text`` with the placeholder replaced by ``token``.

    Raises PermanentError if the token has characters that a shell line could not hold; the sentence does not
    quote it.
    """
    if not _PUTTABLE.fullmatch(token):
        raise PermanentError(
            "the agent's token holds characters that no credential line can carry: set rotate_tokens",
            reason_code="no_token",
        )
    return text.replace(PLACEHOLDER, token)


def find_token(text: str, section: bool) -> str | None:
    """The agent's token in a live file, or None.

    ``section``: whether to search only the ``## Tools`` section, as in AGENTS.md (see :func:`find_value`).
    """
    return find_value(text, "AUTH_TOKEN", section=section)


def find_value(text: str, key: str, section: bool = False) -> str | None:
    """The value of the last ``key=value`` line of ``text`` that has one, or None (rules.md 24).

    ``section``: search only the last ``## Tools`` section, up to the next heading of the same level or above.
    Lines that begin with ``#`` are ignored, and so are quoted ones (``>``), which are other people's words.
    The middle of a text of more than 1 MiB is not searched.
    """
    found: str | None = None
    lines = _seen(_ends_of(text)).splitlines()
    for line in _tools_section(lines) if section else lines:
        rest = _assigned(line, key)
        if rest is not None:
            found = _value(rest) or found
    return None if found == PLACEHOLDER else found


def token_values(text: str) -> list[str]:
    """What each line that assigns a token assigns, in any part of ``text`` (see `find_value`)."""
    assigned = (_assigned(line, "AUTH_TOKEN") for line in _seen(_ends_of(text)).splitlines())
    return [value for rest in assigned if rest is not None and (value := _value(rest))]


def _seen(text: str) -> str:
    """``text`` without characters that nobody sees; a line loses its carriage return."""
    return _UNSEEN.sub("", text).replace("\u00a0", " ").removesuffix("\r")


def _ends_of(text: str) -> str:
    """The whole lines at both ends of a long text, or all of one that is not long."""
    if len(text) <= 2 * _SEARCHED:
        return text
    head, tail = text[:_SEARCHED].rpartition("\n")[0], text[-_SEARCHED:].partition("\n")[2]
    return f"{head}\n{tail}"


def _assigned(line: str, key: str) -> str | None:
    """What follows ``key =`` if the line assigns it, even after a bullet, in quotes, or exported.

    The line is an agent's, so each step examines it once and never goes back.
    """
    if key not in line:
        return None
    before, equals, rest = line.partition("=")
    before = before.rstrip().rstrip(_MARKS)
    if not equals or not before.endswith(key):
        return None
    lead = before[: len(before) - len(key)].lstrip()
    lead = _without_bullet(lead)
    if lead[:1] == "[" and lead[1:2] in (" ", "x", "X") and lead[2:3] == "]" and lead[3:4].isspace():
        lead = lead[3:].lstrip()
    lead = lead.lstrip(_MARKS).lstrip()
    if lead.startswith("export") and lead[6:7].isspace():
        lead = lead[6:].lstrip()
    return None if lead.lstrip(_MARKS) else rest


def _without_bullet(lead: str) -> str:
    if lead[:1] and lead[0] in _BULLETS and lead[1:2].isspace():
        return lead[1:].lstrip()
    digits = len(lead) - len(lead.lstrip("0123456789"))
    if digits and lead[digits : digits + 1] in (".", ")") and lead[digits + 1 : digits + 2].isspace():
        return lead[digits + 1 :].lstrip()
    return lead


def _tools_section(lines: list[str]) -> Iterator[str]:
    span = tools_span(lines)
    if span is not None:
        yield from lines[span[0] + 1 : span[1]]


def tools_span(lines: Sequence[str], *, examples: bool = True) -> tuple[int, int] | None:
    """Where the last ``## Tools`` section begins and ends: the index of its heading, and that of the line
    after its last one that is not blank. None if there is no such section.

    A heading in a code fence is an example: it counts only with ``examples``, and if there is no other.
    """
    fenced = _fenced(lines)
    found = [number for number, line in enumerate(lines) if _is_tools_heading(_seen(line))]
    starts = [number for number in found if number not in fenced] or (found if examples else [])
    if not starts:
        return None
    end = starts[-1] + 1
    for number in range(starts[-1] + 1, len(lines)):
        line = _seen(lines[number])
        level = 0 if number in fenced else _heading_level(line)
        # A gateway that retires TOOLS.md moves it below this heading whole, its title first (gateways.md 8).
        moved_title = level == 1 and end == starts[-1] + 1
        if level and not moved_title:
            break
        if line.strip():
            end = number + 1
    return starts[-1], end


def _fenced(lines: Sequence[str]) -> set[int]:
    """The lines of closed code fences. A fence that is never closed, or in which another one with a language
    begins, was forgotten there and holds nothing."""
    fenced: set[int] = set()
    opened: tuple[int, str] | None = None
    for number, line in enumerate(lines):
        mark, language = _fence(_seen(line))
        if not mark:
            continue
        if opened is None or (language and mark.startswith(opened[1])):
            opened = number, mark
        elif not language and mark.startswith(opened[1]):
            fenced.update(range(opened[0], number + 1))
            opened = None
    return fenced


def _fence(line: str) -> tuple[str, str]:
    """The marks of a line that opens or closes a code fence, and what follows them; no marks if it does
    neither."""
    text = line.strip()
    rest = text.lstrip(text[:1]) if text[:3] in ("```", "~~~") else text
    marks = text[: len(text) - len(rest)]
    return ("", "") if "`" in rest and marks[:1] == "`" else (marks, rest.strip())


def _heading_level(line: str) -> int:
    """1 or 2 for a Markdown heading of that level, else 0."""
    if "#" not in line:
        return 0
    marks = line.lstrip(" ")
    title = marks.lstrip("#")
    level = len(marks) - len(title)
    if len(line) - len(marks) > 3 or level not in (1, 2) or title[:1] not in (" ", "\t"):
        return 0
    return level if title.strip() else 0


def _is_tools_heading(line: str) -> bool:
    if _heading_level(line) != 2:
        return False
    title = line.lstrip(" #").strip(_BLANKS).rstrip("#").rstrip(_BLANKS)
    return title.removesuffix(":").rstrip(_BLANKS).lower() == "tools"


def _value(rest: str) -> str:
    rest = rest.strip()
    closing = _CLOSING.get(rest[:1])
    if closing is not None and closing in rest[1:]:
        return rest[1 : rest.index(closing, 1)].strip()
    if not rest or rest.startswith("#"):
        return ""
    return rest.split(None, 1)[0].strip(_MARKS).rstrip(",;").strip(_MARKS)


def _digest(token: str, salt: bytes, iterations: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", token.encode("utf-8", "surrogatepass"), salt, iterations)


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode("ascii").rstrip("=")


def _unb64(text: str) -> bytes | None:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return None
