"""Keeps secrets out of every text that is stored or shown (rules.md 29).

:func:`mask` stands between a text and a row, a log line, an event or a terminal. It hides the secrets that
it is given, those that this process has in hand (:func:`remember`), and whatever has the form of a secret.
Its time grows linearly with the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from worker.masking.forms import secrets_in, without_forms
from worker.masking.known import IN_HAND, forget_all, remember, remember_for_good, without_known

__all__ = ["MASK", "forget_all", "mask", "mask_all", "remember", "remember_for_good", "secrets_in"]

MASK = "<masked>"


def mask(text: str, tokens: Iterable[str | None] = ()) -> str:
    """``text`` with every secret in it replaced by ``<masked>``; ``tokens`` are secrets of its subject."""
    in_hand = IN_HAND.tokens()
    known = {token for token in tokens if token}
    return without_forms(without_known(text, in_hand if known <= in_hand else in_hand | known, MASK), MASK)


def mask_all(value: Any, tokens: Iterable[str | None] = ()) -> Any:
    """A JSON value with every text in it masked; in the names of its fields, known secrets alone are."""
    known = tuple(tokens)
    if isinstance(value, str):
        return mask(value, known)
    if isinstance(value, Mapping):
        return {_name(key, known): mask_all(each, known) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [mask_all(each, known) for each in value]
    return value


def _name(key: Any, tokens: Iterable[str | None]) -> Any:
    if not isinstance(key, str):
        return key
    return without_known(key, frozenset(filter(None, tokens)) | IN_HAND.tokens(), MASK)
