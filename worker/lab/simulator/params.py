"""Strict parameters: what a method accepts, and the gateway's words for everything else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from worker.lab.simulator.refusal import Refusal

Kind = Literal["string", "text", "boolean", "integer", "object", "array", "any", "sha256"]
"""The kind of a value: ``text`` is a string of at least one character; ``sha256`` 64 hexadecimal digits."""

_PYTHON: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "text": str,
    "sha256": str,
    "boolean": bool,
    "integer": int,
    "object": dict,
    "array": list,
    "any": object,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """The properties of one object; any other is refused (gateways.md 3)."""

    required: Mapping[str, Kind] = field(default_factory=dict)
    optional: Mapping[str, Kind] = field(default_factory=dict)
    strict: bool = True

    def faults(self, value: Mapping[str, Any], *, at: str = "", no_fewer: str = "must not") -> list[str]:
        """Every fault in ``value``, worded and ordered as the gateways do; ``at`` is a JSON pointer."""
        prefix = f"at {at}: " if at else ""
        root = f"at {at or 'root'}: "
        found = [
            f"{prefix}must have required property '{name}'" for name in self.required if name not in value
        ]
        known = {**self.required, **self.optional}
        if self.strict:
            found += [f"{root}unexpected property '{name}'" for name in value if name not in known]
        for name, kind in known.items():
            if name in value:
                found += [f"at {at}/{name}: {fault}" for fault in _faults_of(value[name], kind, no_fewer)]
        return found

    def check(self, method: str, value: Mapping[str, Any], *, no_fewer: str = "must not") -> None:
        """Raise `Refusal` with all faults of ``value`` in one sentence."""
        if found := self.faults(value, no_fewer=no_fewer):
            raise Refusal(f"invalid {method} params: {'; '.join(found)}")


def _faults_of(value: object, kind: Kind, no_fewer: str) -> list[str]:
    if not isinstance(value, _PYTHON[kind]) or (kind == "integer" and isinstance(value, bool)):
        return [f"must be {'string' if kind in ('text', 'sha256') else kind}"]
    if kind == "text" and not value:
        return [f"{no_fewer} have fewer than 1 characters"]
    if kind == "sha256" and isinstance(value, str):
        short = [f"{no_fewer} have fewer than 64 characters"] if len(value) < 64 else []
        if len(value) != 64 or not all(c in "0123456789abcdefABCDEF" for c in value):
            return [*short, 'must match pattern "^[a-fA-F0-9]{64}$"']
    return []
