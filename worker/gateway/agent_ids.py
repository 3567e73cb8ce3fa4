"""Brings an agent's id into the form that a gateway uses, however the gateway's config spells it."""

from __future__ import annotations

import re
from typing import Any

IMPLICIT_AGENT = "main"
"""The agent of a gateway without a roster. Once there is a roster, it stays the default only if it is listed
first."""
_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def canonical_id(written: Any) -> str:
    """The id that a gateway uses for an id written in its config (measured on 2026.2.12 and 2026.9.6).

    It is lower-cased and cut to 64 characters, with a ``-`` for each run of characters that an id may not
    have; if nothing is left, it is ``main``.
    """
    text = str(written).strip().lower()
    if _ID.fullmatch(text):
        return text
    return re.sub(r"[^a-z0-9_-]+", "-", text).strip("-")[:64] or IMPLICIT_AGENT
