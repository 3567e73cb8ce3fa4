"""Cleans users' text for display, and fits an agent's name into files, roster, label and message. Pure."""

from __future__ import annotations

import re
from functools import cache

from worker.workspace.tokens import PLACEHOLDER

MOST_IN_ROSTER = 200
MOST_IN_LABEL = 64
"""The longest label that sessions.patch accepts up to 2026.7; it accepts 512 from 2026.8 on.

This limit and MOST_IN_ROSTER are in UTF-16 units, as JavaScript counts.
"""

_LINE_BREAKS = re.compile("\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
# Control characters, lone surrogates, invisible spaces and direction overrides: a reader does not see them,
# so their only use is to split a word that a check looks for. Joiners (ZWJ, ZWNJ) are part of languages.
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufeff\u200b\u2060\u202a-\u202e\u2066-\u2069]"
)
_BROKEN = re.compile(r"[ ]*[\t\n]\s*")


def clean(value: object) -> str:
    """``value`` as text without invisible characters and without our placeholder; None is "".

    Lines end with ``\\n``. The placeholder is removed until none is left, so that leftover halves cannot join
    into a new one.
    """
    if value is None:
        return ""
    text = _UNSEEN.sub("", _LINE_BREAKS.sub("\n", str(value)))
    return _without_placeholder(text) if PLACEHOLDER in text else text


def _without_placeholder(text: str) -> str:
    """Remove the placeholder in one pass, whatever its nesting.

    The letters before and after a removal are matched together, and no letter is examined twice.
    """
    falls = _falls(PLACEHOLDER)
    kept: list[str] = []
    matched = [0]  # how much of the placeholder ends at each kept letter
    for letter in text:
        length = matched[-1]
        while length and PLACEHOLDER[length] != letter:
            length = falls[length - 1]
        length += PLACEHOLDER[length] == letter
        kept.append(letter)
        matched.append(length)
        if length == len(PLACEHOLDER):
            del kept[-length:]
            del matched[-length:]
    return "".join(kept)


@cache
def _falls(word: str) -> list[int]:
    """The failure function of Knuth, Morris and Pratt."""
    falls = [0]
    for letter in word[1:]:
        length = falls[-1]
        while length and word[length] != letter:
            length = falls[length - 1]
        falls.append(length + (word[length] == letter))
    return falls


def shown_name(name: str, openclaw_id: str, most: int = MOST_IN_ROSTER) -> str:
    """`one_line` of the agent's name, or the agent's id if nothing visible is left."""
    line = one_line(name, most)
    return line if line.strip() else openclaw_id


def one_line(name: str, most: int = MOST_IN_ROSTER) -> str:
    """``name`` on one line without invisible characters, cut to ``most`` UTF-16 units.

    A name with nothing to clean is returned unchanged, so that no roster is rewritten for it.
    """
    line = _BROKEN.sub(" ", clean(name[: 8 * most]))
    if _units(line) <= most:
        return line
    while _units(line) > most - 1:
        line = line[: -max(1, (_units(line) - most + 1) // 2)]
    return line.rstrip() + "…"


def _units(text: str) -> int:
    return len(text) + sum(character > "\uffff" for character in text)
