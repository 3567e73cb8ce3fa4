"""Tells whether a word looks like a secret, a reference to one, or an ordinary word."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

_UUID = re.compile(r"[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}")
_REFERENCE = re.compile(
    r"\$[A-Za-z_]\w*[.,;:)]*|\$\(.*|\$\{.*|\{\{.*|%[A-Za-z_]\w*%"
    r"|<[A-Za-z][\w .:/-]{0,60}>[.,;:)]*|\[[A-Za-z ]{2,40}\]"
    r"|(?:os\.|process\.env|getenv|ENV\[|env\.|secrets\.|vault:|secretKeyRef|file:).*"
    r"|[.*\u2022\u2026x#_-]{1,64}|@@[A-Z-]+@@",
    re.DOTALL,
)
_FILE = re.compile(r"[\w./~-]{0,100}\.[A-Za-z][A-Za-z0-9]{0,4}")
_LINK = re.compile(r"[a-z][a-z0-9+.-]{0,20}://.*", re.DOTALL)
_ORDINARY = frozenset(
    re.findall(
        r"\w+",
        "a an and any are as at auth authentication basic bearer blank bool boolean by changed copied "
        "created default deleted digest disabled each empty enabled environment env expired expires false "
        "file first for found from given hash here hidden his her if in integer int invalid is issued it "
        "its kept key keys live lost masked minted mismatch missing must my needed never new next no none "
        "not null number of off ok old on once one only optional or other our password pending per "
        "placeholder plain provided redacted removed required reset reused right rotate rotated rotation "
        "same scope secret see sent set so stale stored string str text that the their there this to todo "
        "token tokens true tbd type undefined unknown unset unused use used user valid value verified was "
        "what when where which who with without wrong yes you your ",
    )
)
_WORD_PARTS = re.compile(r"[/.:=~+,;@]+")
_RUN = re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])", re.ASCII)
_PART = re.compile(r"[A-Za-z0-9_-]\.\Z", re.ASCII)
_LONGEST_LOOKED_AT = 512


def is_reference(value: str) -> bool:
    """Whether ``value`` only says where a secret is to be found, or is a placeholder."""
    return not value or _REFERENCE.fullmatch(value[:_LONGEST_LOOKED_AT]) is not None


def is_ordinary(value: str) -> bool:
    """Whether ``value`` is a common word, a file name, a link, or has no letters or digits."""
    if len(value) > _LONGEST_LOOKED_AT:
        return False
    word = value.strip(".,;:!?()[]{}*_\"'`").lower()
    if not any(letter.isalnum() for letter in word) or word in _ORDINARY:
        return True
    return bool(_FILE.fullmatch(value.rstrip(".,;:)")) or _LINK.fullmatch(value))


def is_random(word: str, shortest: int) -> bool:
    """Whether ``word`` looks generated rather than written by a person.

    That means a part of at least ``shortest`` characters that changes often between upper case, lower case
    and digits; from 32 characters on, letters of both cases are enough. UUIDs do not count.
    """
    word = _UUID.sub(" ", word[:_LONGEST_LOOKED_AT]) if "-" in word else word[:_LONGEST_LOOKED_AT]
    return any(_alternates(part) for part in _WORD_PARTS.split(word) if len(part) >= shortest)


def is_minted_token(word: str) -> bool:
    """Whether ``word`` has the form of a token that this program mints: 43 characters of urlsafe base64."""
    return _RUN.fullmatch(word) is not None and _mixed(word)


def minted_tokens(text: str) -> Iterator[tuple[int, int]]:
    """Where words of that form stand in ``text``: start and end of each. A word that goes on after a point,
    as a part of a JWT does, is none."""
    for found in _RUN.finditer(text):
        if _mixed(found[0]) and _PART.search(text, max(0, found.start() - 2), found.start()) is None:
            yield found.span()


def _mixed(word: str) -> bool:
    upper, lower, digits = _counted(word)
    return upper >= 3 and lower >= 3 and digits >= 1 and _changes(word) >= 10


def _alternates(part: str) -> bool:
    upper, lower, digits = _counted(part)
    letters = upper + lower
    # 32 letters in a row that a person typed follow patterns that these two bounds exclude.
    enough = (digits >= 2 and letters >= 2) or (len(part) >= 32 and upper >= 3 and lower >= 3)
    return enough and _changes(part) >= max(4, len(part) // 5)


def _counted(word: str) -> tuple[int, int, int]:
    upper = sum("A" <= letter <= "Z" for letter in word)
    lower = sum("a" <= letter <= "z" for letter in word)
    return upper, lower, sum("0" <= letter <= "9" for letter in word)


def _changes(word: str) -> int:
    """How often a letter is of another kind than the one before it."""
    kinds = [_kind(letter) for letter in word if letter not in "-_"]
    return sum(one != other for one, other in pairwise(kinds))


def _kind(letter: str) -> int:
    return 0 if letter.isdigit() else 1 if letter.islower() else 2
