"""Finds secrets that a text names: ``AUTH_TOKEN=...``, ``password: ...``, ``Authorization: Bearer ...``.

The scanner reads the lines forward. A value ends with its line or its indented block, and no part of the text
is examined more than a fixed number of times, whatever its author wrote.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass

from worker.masking.word_shapes import is_ordinary, is_random, is_reference

_WORDS = (
    r"tokens?|secret|passw(?:or)?[dt]|passphrase|pwd|(?:api|access|private|signing|encryption|auth)[_.-]?key"
    r"|credential|authorization|cookie|kennwort|contrase\u00f1a|senha|\u043f\u0430\u0440\u043e\u043b\u044c"
    r"|\u5bc6\u7801|\u4ee4\u724c"
)
_STRONG = re.compile(_WORDS, re.IGNORECASE)
_KEYWORD = re.compile(rf"{_WORDS}|bearer|key", re.IGNORECASE)
_PERSONAL = re.compile(
    r"passw|passphrase|pwd|kennwort|contrase|senha|\u043f\u0430\u0440\u043e\u043b|\u5bc6", re.IGNORECASE
)
"""Names of secrets that people make up, which need not look random and may contain blanks."""
_ATTRIBUTE_SUFFIX = re.compile(
    r"(?:(?i:[_.-](?:files?|paths?|dir|folder|names?|env|var|type|counts?|limit|url|uri|expir\w{0,4}|ttl|length|len|size"
    r"|bytes|budget|usage|ids?|policy|rotation|format|header|required|enabled|at|in|from|ref|location))"
    r"|(?:File|Path|Dir|Name|Env|Type|Count|Limit|Url|Expiry|Length|Size|Id|Ref)"
    r"|i[zs](?:er|e|ed|ing)|ary|less)$"
)
"""Endings of names that are about a secret and do not hold one."""
_KEY_BEFORE = re.compile(r"(?:api|access|auth|private|secret|signing|encryption)[ \t]+$", re.IGNORECASE)
_FLAG = re.compile(
    r"--?(?:[a-z-]{0,40}-)?(?:token|password|passwd|passphrase|secret|api-?key|credential)", re.I
)

_BLANK = "\u00a0\u200b-\u200f\u2060\ufeff\u00ad \t"
_CLOSES = frozenset("`'\"\u2019\u201d")
_QUOTE = "`'\"\u2018\u2019\u201c\u201d"
_NAME = re.compile(r"[\w.-]+")
_GAP = re.compile(rf"[{_QUOTE}*\\\])?!{_BLANK}]*")
_SEPARATOR = re.compile(r"::|:=|=>|==+|!==?|:|=|->|\||\uff1a|\uff1d")
_BLANKS = re.compile(rf"[{_BLANK}]*")
_OPENING = re.compile(rf"\**\\*(?P<quote>[{_QUOTE}])?\**")
_CLOSING = {"\u2018": "\u2019", "\u201c": "\u201d"}
_WORD = re.compile(rf"[^\s{_QUOTE}\\\u00a0]+")
_QUERY_WORD = re.compile(rf"[^\s{_QUOTE}\\&#<>]+")
_SCHEME = re.compile(r"(?:bearer|basic|token|digest|apikey|negotiate)[ \t]+", re.IGNORECASE)
_IS = re.compile(r"[ \t,]+(?:is|was|are|lautet|ist)(?:[ \t]+|[ \t]*:[ \t]*)", re.IGNORECASE)
_ITS_VALUE = re.compile(r"[\"',\s\\-]*value[\"'\\]*[ \t]*[:=]", re.IGNORECASE)
_PAIR = re.compile(r"[\"'][ \t]*,[ \t]*(?=[\"'])")
_AFTER = re.compile(rf"[{_QUOTE}*\\,;)\]}}{_BLANK}]*(?:#|//|$)?")
_BLOCK = re.compile(r"[|>][+-]?[0-9]?[ \t]*(?:#.*)?$")
_INDENT = re.compile(r"[ \t]*(?:-[ \t]+)*")
_CALL = re.compile(r"[A-Za-z_][\w.]{0,80}\(")
_LINE_END = re.compile(r"[\n\r\u2028\u2029\x85\x0b\x0c]|\Z")
_CANDIDATE = re.compile(r"[A-Za-z0-9_+/~-]{16,}")
_LONE_WORD = re.compile(rf"[{_QUOTE}*>+{_BLANK}-]*(?P<word>[A-Za-z0-9_+/=~.-]{{16,}})[{_QUOTE}*{_BLANK}]*")
_LONGEST_LONE_LINE = 600
_NEAR = 3
"""Up to this many lines below one that mentions a secret, a random word alone on a line counts as it."""
_MOST_JUDGED = 8
"""A stretch without blanks that names more secrets than this is not prose, and is masked as a whole."""
_SHOWN = 512
"""How many characters of a longer value are examined."""


@dataclass(frozen=True)
class Found:
    """The span of a secret in a text. ``named``: whether a name before it says that it is a secret."""

    start: int
    end: int
    named: bool


@dataclass(frozen=True)
class _Name:
    """The name of a secret.

    ``strong``: what follows is a secret even if it looks like an ordinary word. ``personal``: people make up
    such secrets.
    """

    start: int
    end: int
    text: str
    strong: bool
    personal: bool


class _Scanner:
    """Collects the secrets that one text names."""

    def __init__(self, text: str) -> None:
        self.found: list[Found] = []
        self._text = text
        self._ends = [match.start() for match in _LINE_END.finditer(text)]
        self._run: tuple[re.Pattern[str], int, int] = (_WORD, 0, 0)
        self._judged = 0

    def scan(self) -> list[Found]:
        """Scan the whole text once."""
        line, near = 0, 0
        while line < len(self._ends):
            start, end = self._start(line), self._ends[line]
            if _KEYWORD.search(self._text, start, end) is not None:
                line, near = self._scan_line(line), _NEAR
                continue
            if near and start < end:
                near -= 1
                self._take_lone_word(start, end)
            line += 1
        return self.found

    def _start(self, line: int) -> int:
        return self._ends[line - 1] + 1 if line else 0

    def _take_lone_word(self, start: int, end: int) -> None:
        lone = _LONE_WORD.fullmatch(self._text, start, end) if end - start <= _LONGEST_LONE_LINE else None
        if lone is not None and is_random(lone["word"], 16):
            self.found.append(Found(lone.start("word"), lone.end("word"), False))

    def _scan_line(self, line: int) -> int:
        """Scan a line that mentions secrets; returns the line to go on with."""
        start, end = self._start(line), self._ends[line]
        at = start
        while (match := _NAME.search(self._text, at, end)) is not None:
            at = match.end()
            name = self._name(match)
            if name is not None:
                found = self._value_of(name, line)
                if found > end:  # the whole block was taken
                    return bisect_left(self._ends, found) + 1
                at = max(at, found)
        for match in _CANDIDATE.finditer(self._text, start, end):
            if is_random(match[0][:_SHOWN], 16):
                self.found.append(Found(match.start(), match.end(), False))
        return line + 1

    def _name(self, match: re.Match[str]) -> _Name | None:
        text, start, end = self._text, match.start(), match.end()
        if _KEYWORD.search(text, start, end) is None:
            return None
        tail = text[max(start, end - 100) : end].rstrip(".-")
        if _ATTRIBUTE_SUFFIX.search(tail) is not None:
            return None
        strong = _STRONG.search(text, start, end) is not None
        strong = strong and not tail.lower().endswith("tokens")
        strong = strong or (
            tail.lower() == "key" and _KEY_BEFORE.search(text[max(0, start - 20) : start]) is not None
        )
        return _Name(start, end, tail, strong, _PERSONAL.search(text, start, end) is not None)

    def _value_of(self, name: _Name, line: int) -> int:
        """Take the value of the name if it is a secret; returns where to go on scanning."""
        text, end = self._text, self._ends[line]
        gap = _GAP.match(text, name.end, end)
        assert gap is not None
        at = gap.end()
        separator = _SEPARATOR.match(text, at, end)
        if separator is None or separator[0] == "::":
            return self._without_separator(name, at, line)
        at = separator.end()
        blanks = _BLANKS.match(text, at, end)
        assert blanks is not None
        at = blanks.end()
        if separator[0] in (":", "=", ":=", "\uff1a"):
            if at == end:
                return self._next_line(name, line)
            if _BLOCK.match(text, at, end) is not None:
                return self._block(line)
        return self._judge(name, separator[0], at, line)

    def _judge(self, name: _Name, separator: str, at: int, line: int) -> int:
        text, end = self._text, self._ends[line]
        opening = _OPENING.match(text, at, end)
        assert opening is not None
        at = opening.end()
        scheme = _SCHEME.match(text, at, end)
        if scheme is not None:
            at = scheme.end()
        quote = opening["quote"]
        close = self._closing(quote, at, end, escaped="\\" in opening[0]) if quote else -1
        if close >= 0:
            return self._judge_quoted(name, separator, at, close)
        stop = self._word_end(at, end, query=text[max(0, name.start - 1) : name.start] in ("?", "&"))
        if stop == at:
            return at
        value = text[at : min(stop, at + _SHOWN)]
        if self._judged > _MOST_JUDGED:
            return self._take(at, stop)
        if is_reference(value) or ("cookie" in name.text.lower() and "=" not in value):
            return at
        if separator in ("=", ":=", "=>", "\uff1d"):
            return self._judge_assigned(name, at, stop, line)
        if scheme is not None and not is_ordinary(value) and (len(value) >= 20 or not value.isalpha()):
            return self._take(at, stop)
        alone = separator != "|" and self._stands_alone(stop, end) and separator in (":", "\uff1a", "->")
        if alone and name.strong and not is_ordinary(value) and not self._ends_a_sentence(name, value, line):
            return self._take(at, stop)
        letters = any(letter.isalpha() for letter in value)
        if name.personal and letters and any(letter.isdigit() for letter in value) and not is_ordinary(value):
            return self._take(at, stop)
        return self._take(at, stop) if is_random(value, 12) else at

    def _judge_quoted(self, name: _Name, separator: str, at: int, close: int) -> int:
        value = self._text[at : min(close, at + _SHOWN)]
        if is_reference(value) or not value.strip():
            return close
        if not name.strong:
            return self._take(at, close) if is_random(value, 12) else close
        assigned = separator in ("=", ":=", "=>", "\uff1d")
        if not (name.personal or assigned) and any(letter.isspace() for letter in value):
            return at
        if not assigned and is_ordinary(value):
            return close
        return self._take(at, close)

    def _judge_assigned(self, name: _Name, at: int, stop: int, line: int) -> int:
        text, end = self._text, self._ends[line]
        value = text[at : min(stop, at + _SHOWN)]
        if not name.strong:
            return self._take(at, stop) if is_random(value, 12) else at
        if text[name.end : name.end + 1] == " " and _CALL.match(value) and name.text.islower():
            return at  # a line of a program, such as token = read_token()
        before = text[max(self._start(line), name.start - 30) : name.start].strip(f"{_QUOTE} \t+-*>")
        if name.personal and before in ("", "export"):
            comment = text.find(" #", stop, end)
            stop = end if comment < 0 else comment
            while text[stop - 1].isspace():
                stop -= 1
        return self._take(at, stop)

    def _ends_a_sentence(self, name: _Name, value: str, line: int) -> bool:
        """Whether the value is the end of a sentence: a lower-case word after several others."""
        if name.personal or not (value.isalpha() and value.islower()):
            return False
        before = self._text[max(self._start(line), name.start - 80) : name.start]
        return len(before.split()) >= 2

    def _without_separator(self, name: _Name, gap: int, line: int) -> int:
        text, end = self._text, self._ends[line]
        valued = _ITS_VALUE.match(text, name.end)
        if valued is not None:
            blanks = _BLANKS.match(text, valued.end())
            assert blanks is not None
            # Wherever the value ends, the rest of the name's line must still be scanned.
            self._judge(name, ":", blanks.end(), bisect_left(self._ends, blanks.end()))
            return name.end
        pair = _PAIR.match(text, name.end, end)
        if pair is not None:
            return self._judge(name, ":", pair.end(), line)
        if text[name.start - 1 : name.start] == "<" and text[name.end : name.end + 1] == ">":
            close = text.find("<", name.end, min(end, name.end + _SHOWN))
            value = text[name.end + 1 : close] if close >= 0 else ""
            known = not name.strong or is_reference(value.strip())
            return name.end if known else self._take(name.end + 1, close)
        assignment = _IS.match(text, gap, end) or _IS.match(text, name.end, end)
        lower = name.text.lower()
        flag = _FLAG.fullmatch(name.text) is not None
        login = lower == "password" and "login" in text[max(self._start(line), name.start - 100) : name.start]
        if assignment is None and not flag and not login and lower != "bearer":
            return name.end
        at = assignment.end() if assignment is not None else gap
        opening = _OPENING.match(text, at, end)
        assert opening is not None
        at = opening.end()
        stop = self._word_end(at, end)
        value = text[at : min(stop, at + _SHOWN)]
        if stop == at or is_reference(value) or is_ordinary(value) or value.startswith("-"):
            return name.end
        mixed = any(letter.isdigit() for letter in value) and any(letter.isalpha() for letter in value)
        if assignment is not None:
            secret = (name.personal and (mixed or bool(opening["quote"]))) or is_random(value, 8)
        else:
            secret = flag or login or (len(value) >= 8 and mixed) or len(value) >= 20
        return self._take(at, stop) if secret else name.end

    def _next_line(self, name: _Name, line: int) -> int:
        """Take the value from the line below the name: one word, indented further, and not another name."""
        here = self._ends[line]
        if not name.strong or line + 1 >= len(self._ends):
            return here
        start, end = here + 1, self._ends[line + 1]
        if self._indent(line + 1) <= self._indent(line) or end - start > _LONGEST_LONE_LINE:
            return here
        value = self._text[start:end].strip()
        word = value.strip(_QUOTE)
        single = not any(letter.isspace() or letter == ":" for letter in word) and "=" not in word[:-2]
        if word and single and not is_reference(word) and not is_ordinary(word):
            at = self._text.index(word, start)
            self.found.append(Found(at, at + len(word), True))
        return here

    def _block(self, line: int) -> int:
        """Take the indented lines below a name; returns where they end."""
        base, last = self._indent(line), line
        while last + 1 < len(self._ends):
            start, end = self._ends[last] + 1, self._ends[last + 1]
            blank = not self._text[start:end].strip()
            if not blank and self._indent(last + 1) <= base:
                break
            if not blank:
                left = len(self._text[start:end]) - len(self._text[start:end].lstrip())
                self.found.append(Found(start + left, end, True))
            last += 1
        return self._ends[line] if last == line else max(self._ends[last], self._ends[line] + 1)

    def _indent(self, line: int) -> int:
        start = self._start(line)
        indent = _INDENT.match(self._text, start, self._ends[line])
        assert indent is not None
        return indent.end() - start

    def _closing(self, quote: str, at: int, end: int, *, escaped: bool) -> int:
        """Where the quotation ends on this line; -1 if it does not."""
        wanted = _CLOSING.get(quote, quote)
        close = self._text.find(wanted, at, end)
        while not escaped and close > at and self._text[close - 1] == "\\":
            after = self._text.find(wanted, close + 1, end)
            if after < 0:
                break
            close = after
        if escaped and close > at:
            while close > at and self._text[close - 1] == "\\":
                close -= 1
        return close

    def _stands_alone(self, stop: int, end: int) -> bool:
        if self._text[stop : stop + 1] in _CLOSES:
            return True  # such as a header in a command
        after = _AFTER.match(self._text, stop, end)
        assert after is not None
        return after.end() == end or after[0].endswith(("#", "//"))

    def _word_end(self, at: int, end: int, *, query: bool = False) -> int:
        """Where the stretch without blanks and quotes ends, computed once for each stretch."""
        pattern = _QUERY_WORD if query else _WORD
        known, start, stop = self._run
        if known is pattern and start <= at < stop:
            self._judged += 1
            return stop
        match = pattern.match(self._text, at, end)
        if match is None:
            return at
        self._run, self._judged = (pattern, at, match.end()), 0
        return match.end()

    def _take(self, start: int, end: int) -> int:
        self.found.append(Found(start, end, True))
        return end


def named_secrets(text: str) -> list[Found]:
    """Every secret that ``text`` names, and random words near such names, in no particular order."""
    return _Scanner(text).scan()
