"""A gateway's answers, read by name and type: what has another shape raises BadAnswer and says where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.gateway.errors import BadAnswer
from worker.printable import utf8

LARGEST_COUNT = 2**53
"""Up to here JavaScript counts exactly; Postgres's bigint and our arithmetic reach further."""
LONGEST_WAIT_S = 600.0
"""The longest that a gateway may have us wait: twice what any release asks for."""


@dataclass(frozen=True)
class Answer:
    """One object of an answer. ``gateway`` and ``method`` say whose answer to what it is, ``path`` where in
    it this object stands ("" for the whole)."""

    value: Mapping[str, Any]
    gateway: str
    method: str
    path: str = ""

    def text(self, name: str) -> str:
        """A text, as UTF-8 can hold it. Raises BadAnswer."""
        value = self.value.get(name)
        if not isinstance(value, str):
            raise self.wrong(name, "text")
        return utf8(value)

    def text_or_none(self, name: str) -> str | None:
        """A text, None where there is none. Raises BadAnswer for anything else."""
        return None if self.value.get(name) is None else self.text(name)

    def count(self, name: str) -> int:
        """A whole number from 0 on. Raises BadAnswer."""
        number = whole_number(self.value.get(name))
        if number is None:
            raise self.wrong(name, "a whole number from 0 on")
        return number

    def moment_ms(self, name: str) -> int | None:
        """A moment in milliseconds; None for one that is absent or cannot be: it only spares a reading."""
        return whole_number(self.value.get(name))

    def flag(self, name: str) -> bool:
        """Whether it is true; absent is false. Raises BadAnswer for what is neither true nor false."""
        value = self.value.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value is True

    def record(self, name: str) -> Answer:
        """An object inside this one. Raises BadAnswer."""
        return self._record(name, self.value.get(name))

    def record_or_none(self, name: str) -> Answer | None:
        """An object inside this one, None where there is none. Raises BadAnswer for anything else."""
        value = self.value.get(name)
        return None if value is None else self._record(name, value)

    def records(self, name: str) -> list[Answer]:
        """A list of objects. Raises BadAnswer."""
        value = self.value.get(name)
        if not isinstance(value, list):
            raise self.wrong(name, "a list")
        return [self._record(f"{name}[{place}]", item) for place, item in enumerate(value)]

    def wrong(self, name: str, wanted: str) -> BadAnswer:
        """The error for ``name`` being of another shape than ``wanted``."""
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
    """A whole number from 0 to LARGEST_COUNT, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LARGEST_COUNT:
        return None
    return int(value) if value == int(value) else None


def seconds(milliseconds: object, longest_s: float = LONGEST_WAIT_S) -> float | None:
    """A time to wait as the gateway gives it, at most ``longest_s``; None for what is no such number."""
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float):
        return None
    # NaN is not above anything.
    return min(milliseconds, longest_s * 1000) / 1000 if milliseconds >= 0 else None
