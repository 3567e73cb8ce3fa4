"""Escapes untrusted text so that it cannot end a line, move a cursor or look like other text."""

from __future__ import annotations

import unicodedata

_ESCAPED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Controls, formats (such as text direction), lone surrogates, private and unassigned characters, line
breaks."""


def escaped(text: str, longest: int | None = None) -> str:
    """``text`` with control, format and other unsafe characters written as backslash escapes.

    If ``text`` is longer than ``longest`` characters, its middle is replaced by the number of characters left
    out.
    """
    if longest is not None and len(text) > longest:
        half = longest // 2
        text = f"{text[:half]}[... {len(text) - 2 * half} characters ...]{text[len(text) - half :]}"
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(character) for character in text)


def _escape(character: str) -> str:
    if unicodedata.category(character) not in _ESCAPED:
        return character
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(
        character,
        character.encode("unicode_escape").decode()
        if not "\ud800" <= character <= "\udfff"
        else f"\\u{ord(character):04x}",
    )
