"""Keeps secrets out of every text that is stored or shown (rules.md 29).

:func:`mask` is called before a text goes into a row, a log line, an event or a terminal. It hides the secrets
that it is given, those that this process remembers (:func:`remember`), and whatever looks like a secret. It
takes time in proportion to the text's length.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from worker.masking.known_secrets import REMEMBERED, forget_known, mask_known, remember, remember_for_good
from worker.masking.secret_patterns import mask_patterns, secrets_in

__all__ = ["MASK", "forget_all", "mask", "mask_all", "remember", "remember_for_good", "secrets_in"]

MASK = "<masked>"


_SHORT = 80
"""Texts up to this many characters are masked once and cached.

Most texts of a job's row are the names of its files, of their fields and of what was done with them.
"""


def mask(text: str, tokens: Iterable[str | None] = ()) -> str:
    """``text`` with every secret in it replaced by ``<masked>``.

    ``tokens``: secrets to hide beside the remembered ones, such as the token of the agent concerned.
    """
    return _masked(text, _with_remembered(tokens))


def forget_all() -> None:
    """Forget all remembered secrets, and the cached results of masking."""
    forget_known()
    _mask_cached.cache_clear()
    _mask_name_cached.cache_clear()


def _with_remembered(tokens: Iterable[str | None]) -> frozenset[str]:
    remembered = REMEMBERED.tokens()
    given = {token for token in tokens if token}
    return remembered if given <= remembered else remembered | given


def _masked(text: str, known: frozenset[str]) -> str:
    return _mask_cached(text, known) if len(text) <= _SHORT else _mask(text, known)


def _mask(text: str, known: frozenset[str]) -> str:
    return mask_patterns(mask_known(text, known, MASK), MASK)


_mask_cached = lru_cache(maxsize=4096)(_mask)


@lru_cache(maxsize=1024)
def _mask_name_cached(name: str, known: frozenset[str]) -> str:
    return mask_known(name, known, MASK)


def mask_all(value: Any, tokens: Iterable[str | None] = ()) -> Any:
    """A JSON value with every text in it masked; in keys, only known secrets are masked."""
    return _all_masked(value, _with_remembered(tokens))


def _all_masked(value: Any, known: frozenset[str]) -> Any:
    if isinstance(value, str):
        return _masked(value, known)
    if isinstance(value, Mapping):
        return {_name(key, known): _all_masked(each, known) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_all_masked(each, known) for each in value]
    return value


def _name(key: Any, known: frozenset[str]) -> Any:
    if not isinstance(key, str):
        return key
    return _mask_name_cached(key, known) if len(key) <= _SHORT else mask_known(key, known, MASK)
