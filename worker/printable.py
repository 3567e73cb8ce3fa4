"""Makes untrusted text fit to be quoted in a sentence, logged and stored. Pure.

Postgres stores no NUL and no lone surrogate, a terminal obeys control characters, and a megabyte is too long
to read.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

LONGEST_SENTENCE = 4000
_CUT = " ... (cut)"

# C0 and C1 controls, Unicode line ends, and marks that reverse the direction of the text around them.
_BREAKING = "\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
_CONTROLS = re.compile(f"[{_BREAKING}]+")
_CONTROLS_AND_ENDS = re.compile(f"[\t\n{_BREAKING}]+")
_HALVES = re.compile("[\ud800-\udfff]")


def line(words: str, most: int = LONGEST_SENTENCE) -> str:
    """``words`` without control characters, as one line of at most ``most`` characters."""
    return _cut(_CONTROLS_AND_ENDS.sub(" ", _whole(words[: 2 * most])).strip(), most)


def paragraph(words: str, most: int = 20_000) -> str:
    """``words`` without control characters other than line feeds and tabs, in at most ``most`` characters."""
    return _cut(_CONTROLS.sub(" ", _whole(words[: 2 * most])), most)


def utf8(content: str) -> str:
    """``content`` with every lone surrogate replaced by U+FFFD, as UTF-8 cannot encode it."""
    return _whole(content)


def storable(value: Any) -> Any:
    """A JSON value that Postgres's jsonb can store: no NUL, no lone surrogate, no NaN or Infinity."""
    if isinstance(value, str):
        return _whole(value).replace("\x00", "\ufffd")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    return value


def to_jsonb(value: Any) -> str:
    """``value`` as JSON that a jsonb column accepts, made `storable` if necessary."""
    text = json.dumps(value)
    suspect = "\\u0000" in text or "\\ud" in text or "NaN" in text or "Infinity" in text
    return json.dumps(storable(value)) if suspect else text


def readable_json(written: str | None) -> Any:
    """Parse stored JSON in order to show it.

    None without JSON, or if Python cannot read it, such as for its depth or the length of a number.
    """
    try:
        return None if written is None else json.loads(written)
    except (ValueError, RecursionError):
        return None


def _whole(text: str) -> str:
    return _HALVES.sub("\ufffd", text) if not text.isascii() else text


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - len(_CUT)] + _CUT
