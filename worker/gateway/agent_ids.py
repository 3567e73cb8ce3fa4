"""An agent's id as a gateway goes by it, and as its config spells it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

IMPLICIT_AGENT = "main"
"""The agent that a gateway without a roster has; it stays the default only if it is listed first."""
_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def canonical_id(written: Any) -> str:
    """The id that a gateway goes by for one as it is written in its config: in lower case, and with ``-`` for
    each run of characters that an id may not have (measured on 2026.2.12 and 2026.9.6)."""
    text = str(written).strip().lower()
    if _ID.fullmatch(text):
        return text
    return re.sub(r"[^a-z0-9_-]+", "-", text).strip("-")[:64] or IMPLICIT_AGENT


def spellings(written: Iterable[Any]) -> Mapping[str, str]:
    """Ids as a config spells them, by the id that the gateway goes by; of several, the first."""
    found: dict[str, str] = {}
    for each in written:
        found.setdefault(canonical_id(each), str(each))
    return found
