"""Shows how a live file differs from its rendering, without secrets and bounded in time and size. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator

from worker.masking import mask, secrets_in

DIFF_LIMIT = 20 * 1024
"""Limit on the bytes of one file's diff; the rest is cut off."""
MOST_COMPARED = 512 * 1024
"""Limit on the characters of a text that is compared."""
_MOST_PAIRS = 1_000_000
"""The most line pairs to match: difflib's time grows faster than their number."""
_MOST_SECRETS = 64
_CONTEXT = 3


def known_secrets(texts: Iterable[str], tokens: Iterable[str | None]) -> frozenset[str]:
    """An agent's secrets: ``tokens``, and the 64 longest of those that ``texts``, its files, name."""
    noted: set[str] = set()
    for text in texts:
        if len(text) <= MOST_COMPARED:
            noted |= secrets_in(text)
    longest = sorted(noted, key=lambda secret: (-len(secret), secret))[:_MOST_SECRETS]
    return frozenset(token for token in (*tokens, *longest) if token)


def file_diff(
    before: str,
    after: str,
    secrets: Collection[str],
    names: tuple[str, str] = ("on the gateway", "rendered"),
) -> str:
    """A unified diff from the live text to the rendered one, with every secret masked, at most 20 KB.
    ``names``: what its first lines call the two."""
    longest = max(len(before), len(after))
    if longest > MOST_COMPARED:
        return f"(left out: the file has {longest:,} characters, and at most {MOST_COMPARED:,} are compared)"
    lines = _compared(mask(before, secrets).splitlines(), mask(after, secrets).splitlines(), names)
    # An agent's text may hold characters that Postgres cannot store.
    text = "\n".join(lines).encode(errors="replace").decode().replace("\x00", "\ufffd")
    if len(text.encode()) <= DIFF_LIMIT:
        return text
    return text.encode()[:DIFF_LIMIT].decode(errors="ignore") + "\n... (cut at 20 KB)"


def _compared(before: list[str], after: list[str], names: tuple[str, str]) -> Iterator[str]:
    same = _equal(before, after)
    left, right = before[same:], after[same:]
    tail = _equal(left[::-1], right[::-1])
    if (len(left) - tail) * (len(right) - tail) <= _MOST_PAIRS:
        # Of the equal lines around the difference, difflib gets only those of the context, to save time.
        start = max(0, same - _CONTEXT)
        stop = max(0, tail - _CONTEXT)
        some_before = before[start : len(before) - stop]
        some_after = after[start : len(after) - stop]
        lines = difflib.unified_diff(some_before, some_after, *names, lineterm="")
        yield from _moved(lines, start)
        return
    yield f"--- {names[0]}"
    yield f"+++ {names[1]}"
    removed, added = left[: len(left) - tail], right[: len(right) - tail]
    yield f"@@ -{same + 1},{len(removed)} +{same + 1},{len(added)} @@ too many lines differ to match them"
    yield from (f"-{line}" for line in removed)
    yield from (f"+{line}" for line in added)


def _equal(before: list[str], after: list[str]) -> int:
    """How many lines are equal from the start."""
    pairs = enumerate(zip(before, after, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(before), len(after)))


def _moved(lines: Iterator[str], start: int) -> Iterator[str]:
    """The diff of a part that begins after ``start`` lines, with line numbers of the whole."""
    for line in lines:
        if line.startswith("@@ ") and start:
            old, new = line.split()[1:3]
            yield f"@@ {_shifted(old, start)} {_shifted(new, start)} @@"
        else:
            yield line


def _shifted(place: str, start: int) -> str:
    first, comma, count = place[1:].partition(",")
    return f"{place[0]}{int(first) + start}{comma}{count}"
