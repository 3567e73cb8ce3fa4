"""Puts our ``## Tools`` section into an owner's file that carries the token, and changes nothing else in it
(rules.md 48). Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from worker.workspace.plan import sha256_of
from worker.workspace.rendering import RenderedFile
from worker.workspace.three_sides import tools_of
from worker.workspace.tokens import PLACEHOLDER, find_value, token_values, tools_span


def section_of(file: RenderedFile) -> RenderedFile | None:
    """The ``## Tools`` section of a rendering, as a thing to deliver of its own; None if it has none that
    carries the token."""
    text = tools_of(file.text) or ""
    if PLACEHOLDER not in text:
        return None
    return replace(file, kind="section", text=text, source_sha256=sha256_of(text))


def with_section(live: str, section: str, delivered_sha256: str | None) -> str:
    """The owner's text with our ``section`` in place of the one that is there, or below everything else.

    The section that is there is the last one named Tools, if it assigns a token: an owner's own need not. One
    in a code fence is an example, and stays.
    Lines that somebody added below what we delivered last (``delivered_sha256``) stay. Ours end with a bare
    newline in any file: shells read the token there.
    """
    lines = live.split("\n")
    span = tools_span(lines, examples=False)
    if span is not None and _token_in(lines, span) is not None:
        end = _end_of_ours(lines, span, delivered_sha256)
        return "\n".join([*lines[: span[0]], *section.split("\n"), *lines[end:]])
    gap = "" if not live.strip() else "\n" if live.endswith("\n") else "\n\n"
    return f"{live}{gap}{section}\n"


def foreign_tokens(text: str) -> int:
    """How many tokens the text assigns beside the placeholder of ours."""
    return sum(value != PLACEHOLDER for value in token_values(text))


def _token_in(lines: Sequence[str], span: tuple[int, int]) -> str | None:
    return find_value("\n".join(lines[span[0] : span[1]]), "AUTH_TOKEN")


def _end_of_ours(lines: Sequence[str], span: tuple[int, int], delivered_sha256: str | None) -> int:
    """The line behind our part of the section: the whole section, unless it begins with what we delivered."""
    token, so_far = _token_in(lines, span), hashlib.sha256()
    for number in range(span[0], span[1]):
        line = lines[number].removesuffix("\r")
        line = line.replace(token, PLACEHOLDER) if token else line
        so_far.update(("\n" * (number > span[0]) + line).encode(errors="surrogatepass"))
        if so_far.hexdigest() == delivered_sha256:
            return number + 1
    return span[1]
