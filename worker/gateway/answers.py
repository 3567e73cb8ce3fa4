"""Reads a gateway's answers by name and type.

A value of another type raises BadAnswer, which names the place of the value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.gateway.errors import BadAnswer
from worker.printable import utf8

LARGEST_COUNT = 2**53
"""The largest integer that JavaScript represents exactly; Postgres's bigint holds larger ones."""
LONGEST_WAIT_S = 600.0
"""Limit on the seconds that a gateway may ask us to wait: twice what any release asks for."""


@dataclass(frozen=True)
class Answer:
    """An object in a gateway's answer.

    ``gateway`` and ``method`` say which call was answered. ``path``: where in the answer this object is; ""
    for the whole answer.
    """

    value: Mapping[str, Any]
    gateway: str
    method: str
    path: str = ""

    def text(self, name: str) -> str:
        """The text of that name, with invalid surrogates replaced. Raises BadAnswer."""
        value = self.value.get(name)
        if not isinstance(value, str):
            raise self.wrong(name, "text")
        return utf8(value)

    def count(self, name: str) -> int:
        """The non-negative integer of that name. Raises BadAnswer."""
        number = whole_number(self.value.get(name))
        if number is None:
            raise self.wrong(name, "a whole number from 0 on")
        return number

    def timestamp_ms(self, name: str) -> int | None:
        """The timestamp of that name in milliseconds; None if it is absent or impossible.

        Timestamps only save a second read, so a wrong one is no error.
        """
        return whole_number(self.value.get(name))

    def flag(self, name: str) -> bool:
        """Whether the flag of that name is true; absent is false.

        Raises BadAnswer for anything but a boolean.
        """
        value = self.value.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value is True

    def record(self, name: str) -> Answer:
        """The object of that name. Raises BadAnswer."""
        return self._record(name, self.value.get(name))

    def record_or_none(self, name: str) -> Answer | None:
        """The object of that name; None if it is absent or null. Raises BadAnswer for anything else."""
        value = self.value.get(name)
        return None if value is None else self._record(name, value)

    def records(self, name: str) -> list[Answer]:
        """The list of objects of that name. Raises BadAnswer."""
        value = self.value.get(name)
        if not isinstance(value, list):
            raise self.wrong(name, "a list")
        return [self._record(f"{name}[{place}]", item) for place, item in enumerate(value)]

    def wrong(self, name: str, wanted: str) -> BadAnswer:
        """The error for a value of ``name`` that is not ``wanted``."""
        where = f"{self.path}.{name}" if self.path else name
        return BadAnswer(
            f"{self.gateway} answered {self.method}, but its {where} is not {wanted}: its release is not one"
            " that we know, or something in between changes its answers; see `provisioner doctor`",
            method=self.method,
        )

    def _record(self, name: str, value: object) -> Answer:
        if not isinstance(value, Mapping):
            raise self.wrong(name, "an object")
        path = f"{self.path}.{name}" if self.path else name
        return Answer(value, self.gateway, self.method, path)


def whole_number(value: object) -> int | None:
    """``value`` as an integer from 0 to LARGEST_COUNT, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LARGEST_COUNT:
        return None
    return int(value) if value == int(value) else None


def seconds(milliseconds: object, longest_s: float = LONGEST_WAIT_S) -> float | None:
    """A duration given in milliseconds, in seconds and at most ``longest_s``.

    None if it is not a non-negative number.
    """
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float):
        return None
    # NaN compares as False, so it ends up as None.
    return min(milliseconds, longest_s * 1000) / 1000 if milliseconds >= 0 else None
