"""Reads the keys that operators set for signing and encrypting: WEBHOOK_KEY and BUNDLE_KEY."""

from __future__ import annotations

from collections.abc import Sequence

SHORTEST_KEY = 32


def read_keys(given: str) -> Sequence[str]:
    """The keys in a setting, the newest first: while a key is being changed, it holds the old one too.

    Raises ValueError for one that can be guessed.
    """
    keys = given.split()
    if any(len(key) < SHORTEST_KEY for key in keys):
        raise ValueError(
            f"each key needs at least {SHORTEST_KEY} characters: `openssl rand -hex 32` makes one"
        )
    return keys
