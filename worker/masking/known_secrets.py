"""Hides known secrets, in every encoding in which a text may hold them."""

from __future__ import annotations

import base64
import json
import re
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from urllib.parse import quote

from worker.masking.word_shapes import is_random

_MOST_REMEMBERED = 128
_SHORTEST = 4
"""Masking a shorter secret would hide nothing, since its letters occur in every word."""
_SHORTEST_ANYWHERE = 8
"""A shorter secret is only masked where it is a word of its own."""
_SHORTEST_CODE = 12
_GRAM = 6
_RUN = re.compile(r"[A-Za-z0-9_+/-]{12,}")


class _Remembered:
    """The secrets that this process used most recently, to mask texts whose subject is unknown."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: OrderedDict[str, None] = OrderedDict()
        self._lasting: set[str] = set()
        self._all: frozenset[str] = frozenset()

    def add_lasting(self, secret: str) -> None:
        with self._lock:
            self._lasting.add(secret)
            self._all = frozenset(self._tokens) | self._lasting

    def add(self, token: str) -> None:
        with self._lock:
            if token in self._tokens:
                self._tokens.move_to_end(token)
                return
            self._tokens[token] = None
            while len(self._tokens) > _MOST_REMEMBERED:
                self._tokens.popitem(last=False)
            self._all = frozenset(self._tokens) | self._lasting

    def tokens(self) -> frozenset[str]:
        return self._all

    def clear(self) -> None:
        with self._lock:
            self._tokens.clear()
            self._lasting.clear()
            self._all = frozenset()


REMEMBERED = _Remembered()


def remember(*tokens: str | None) -> None:
    """Remember secrets, so that they are masked in every text; the 128 last remembered are kept.

    Secrets of fewer than 4 characters are ignored.
    """
    for token in tokens:
        if token and len(token) >= _SHORTEST:
            REMEMBERED.add(token)


def remember_for_good(*secrets: str | None) -> None:
    """Remember secrets of the process itself for its lifetime, such as its database and broker passwords.

    Secrets of fewer than 8 characters are ignored.
    """
    for secret in secrets:
        if secret and len(secret) >= _SHORTEST_ANYWHERE:
            REMEMBERED.add_lasting(secret)


def forget_known() -> None:
    """Forget every remembered secret."""
    REMEMBERED.clear()
    _known.cache_clear()
    _encodings.cache_clear()


def mask_known(text: str, tokens: frozenset[str], mask: str) -> str:
    """``text`` with each of ``tokens`` replaced by ``mask``, even if it is encoded or broken across lines."""
    known = _known(tokens)
    for encoding in known.encodings.found_in(text):
        if len(encoding) < _SHORTEST_ANYWHERE:
            text = re.sub(rf"(?<!\w){re.escape(encoding)}(?!\w)", mask, text)
        else:
            text = text.replace(encoding, mask)
    if not known.grams:
        return text
    if _ESCAPE.search(text) is not None:
        view = _decoded(text, _ESCAPE)
        text = _without(text, view, known.whole.found_in(view.text), mask)
    if _BREAK.search(text) is not None and any(gram in text for gram in known.grams):
        for broken in (_BREAK, _BREAK_AND_PREFIX):
            found = known.whole.found_in(broken.sub("", text))
            if found:
                text = _without(text, _decoded(text, broken), found, mask)
    for run in set(_RUN.findall(text)):
        # A part of a secret that a gateway or a log cut off: the reason of a close has at most 123 bytes.
        if run in known.joined and is_random(run, _SHORTEST_CODE):
            text = text.replace(run, mask)
    return text


@dataclass(frozen=True)
class _SearchStrings:
    """Strings to search for in many texts.

    Most secrets and their encodings are one long run of letters and digits. These, ``runs``, are searched for
    only in such runs of the text, of which most texts have few.
    """

    runs: tuple[str, ...]
    others: tuple[str, ...]

    @classmethod
    def of(cls, strings: Iterable[str]) -> _SearchStrings:
        runs: list[str] = []
        others: list[str] = []
        for string in strings:
            (runs if _RUN.fullmatch(string) else others).append(string)
        return cls(tuple(runs), tuple(others))

    def found_in(self, text: str) -> list[str]:
        """The strings that occur in ``text``, longest first."""
        found = {string for string in self.others if string in text}
        runs = "\n".join(_RUN.findall(text)) if self.runs else ""
        if runs:
            found.update(string for string in self.runs if string in runs)
        return sorted(found, key=lambda string: (-len(string), string))


@dataclass(frozen=True)
class _Known:
    """Secrets prepared for searching.

    ``encodings``: all their encodings. ``whole``: those long enough to search for once escapes and line
    breaks are removed. ``grams``: pieces of the latter. ``joined``: all of the latter in one text.
    """

    encodings: _SearchStrings
    whole: _SearchStrings
    grams: tuple[str, ...]
    joined: str


@lru_cache(maxsize=32)
def _known(tokens: frozenset[str]) -> _Known:
    encodings = [_encodings(token) for token in tokens if len(token) >= _SHORTEST]
    long = [token for token in tokens if len(token) >= _SHORTEST_ANYWHERE]
    grams = {token[at : at + _GRAM] for token in long for at in range(0, len(token), _GRAM)}
    return _Known(
        _SearchStrings(
            tuple(run for each in encodings for run in each.runs),
            tuple(other for each in encodings for other in each.others),
        ),
        _SearchStrings.of(long),
        tuple(sorted(grams, key=len)),
        "\n".join(long),
    )


def _hex(raw: bytes, mark: str) -> str:
    return raw.hex(mark) if mark else raw.hex()


@lru_cache(maxsize=4 * _MOST_REMEMBERED)
def _encodings(token: str) -> _SearchStrings:
    """The token as it appears in URLs, JSON, base64, base32 and hexadecimal."""
    raw = token.encode("utf-8", "surrogatepass")
    encodings = {token, json.dumps(token)[1:-1], json.dumps(token, ensure_ascii=False)[1:-1]}
    encodings |= {quote(raw, safe=""), quote(raw)}
    codes = {each for mark in ("", " ", ":", "-") for each in (_hex(raw, mark), _hex(raw, mark).upper())}
    wide = token.encode("utf-16-le", "surrogatepass")
    for octets, shift in product((raw, wide, base64.b64encode(raw)), range(3)):
        # The first and last characters depend on what is beside the token.
        code = base64.b64encode(b"\0" * shift + octets).decode().rstrip("=")
        core = code[(0, 2, 3)[shift] : len(code) - (1 if (shift + len(octets)) % 3 else 0)]
        codes |= {core, core.replace("+", "-").replace("/", "_")}
    codes.add(base64.b32encode(raw).decode().rstrip("=")[: len(raw) * 8 // 5])
    encodings |= {code for code in codes if len(code) >= _SHORTEST_CODE}
    return _SearchStrings.of(encodings)


_ESCAPE = re.compile(
    r"%(?:25){1,4}(?P<again>[0-9A-Fa-f]{2})|(?P<percent>(?:%[0-9A-Fa-f]{2})+)"
    r"|\\{1,8}(?:u(?P<unicode>[0-9A-Fa-f]{4})|u\{(?P<braced>[0-9A-Fa-f]{1,6})\}|U(?P<long>[0-9A-Fa-f]{8})"
    r"|x(?P<hex>[0-9A-Fa-f]{2})|(?P<octal>[0-3][0-7]{2})|(?P<marked>[-_/.~+=!*]))"
    r"|&#0*(?P<entity>[0-9]{1,7}|[xX]0*[0-9A-Fa-f]{1,6});"
)
_INVISIBLE = (
    "\u00ad\u034f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e01ef"
)
_LINE_BREAK = r"(?:\r?\n|[\r\v\f\x85\u2028\u2029])"
_BREAK = re.compile(
    rf"(?:[\\=]?{_LINE_BREAK}[ \t]*|(?:\\r)?\\n[ \t]*|\x1b\[[0-9;]{{0,20}}m|<wbr ?/?>|[{_INVISIBLE}])+"
)
_BREAK_AND_PREFIX = re.compile(rf"(?:\\?{_LINE_BREAK}(?:[-+>|#*][ \t]*|[ \t]+)|[{_INVISIBLE}])+")


@dataclass(frozen=True)
class _DecodedText:
    """A text as its reader sees it, and where each character is in the original.

    It consists of stretches. ``starts``: where each begins. ``originals``: where that is in the original.
    ``ratios``: how many characters of the original each of its characters takes.
    """

    text: str
    starts: list[int]
    originals: list[int]
    ratios: list[int]

    def original(self, at: int) -> tuple[int, int]:
        """The start and end, in the original, of the character at ``at``."""
        stretch = bisect_right(self.starts, at) - 1
        ratio = self.ratios[stretch]
        start = self.originals[stretch] + (at - self.starts[stretch]) * ratio
        return start, start + ratio


def _decoded(text: str, pattern: re.Pattern[str]) -> _DecodedText:
    parts: list[str] = []
    starts: list[int] = []
    originals: list[int] = []
    ratios: list[int] = []
    seen = made = 0

    def add(part: str, original: int, ratio: int) -> None:
        nonlocal made
        parts.append(part)
        starts.append(made)
        originals.append(original)
        ratios.append(ratio)
        made += len(part)

    for match in pattern.finditer(text):
        if match.start() > seen:
            add(text[seen : match.start()], seen, 1)
        plain, ratio = _plain(match)
        if plain:
            add(plain, match.start(), ratio)
        seen = match.end()
    if seen < len(text):
        add(text[seen:], seen, 1)
    return _DecodedText("".join(parts), starts, originals, ratios)


def _plain(match: re.Match[str]) -> tuple[str, int]:
    """What an escape stands for, and how many original characters each of its own takes.

    "" for a line break.
    """
    kind, found = match.lastgroup, match[0]
    if kind == "percent":
        return bytes.fromhex(found.replace("%", "")).decode("latin-1"), 3
    if kind is None:
        return "", 0
    digits = match[kind]
    if kind == "marked":
        return digits, len(found)
    if kind == "entity":
        code = int(digits[1:], 16) if digits[0] in "xX" else int(digits)
    else:
        code = int(digits, 8 if kind == "octal" else 16)
    return chr(code if code < 0x110000 else 0xFFFD), len(found)


def _without(text: str, view: _DecodedText, tokens: Iterable[str], mask: str) -> str:
    spans = sorted(span for token in tokens for span in _occurrences(view, token))
    return replaced(text, spans, mask)


def _occurrences(view: _DecodedText, token: str) -> Iterator[tuple[int, int]]:
    at = view.text.find(token)
    while at >= 0:
        yield view.original(at)[0], view.original(at + len(token) - 1)[1]
        at = view.text.find(token, at + len(token))


def replaced(text: str, spans: Iterable[tuple[int, int]], mask: str) -> str:
    """``text`` with each of the sorted ``spans`` replaced by ``mask``; spans may overlap."""
    parts: list[str] = []
    done = 0
    for start, end in spans:
        if end <= done:
            continue
        if start >= done:
            parts += [text[done:start], mask]
        done = end
    return "".join([*parts, text[done:]]) if parts else text
