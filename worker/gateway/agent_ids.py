"""An agent's id as a gateway goes by it, however its config spells it."""

from __future__ import annotations

import re
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
