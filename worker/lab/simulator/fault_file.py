"""Reads faults from a JSON file, for a simulator that runs as a separate process.

The file holds a list of objects: ``kind``, its name in `KINDS`; ``method``, ``agent``, ``file``, ``nth`` and
``times`` of `Fault`; any other key belongs to the kind. For example::

    [{"kind": "refuse", "method": "agents.files.set", "nth": 3, "times": 2, "message": "later"},
     {"kind": "drop", "method": "config.patch", "carried_out": true}]
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from worker.lab.simulator.faults import Fault, Kind

_PLACE = ("method", "agent", "file", "nth", "times")


def _name_of(kind: type[Any]) -> str:
    """``RefuseUpgrade`` as ``refuse-upgrade``."""
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in kind.__name__)[1:]


KINDS: dict[str, type[Any]] = {_name_of(kind): kind for kind in get_args(Kind)}


def faults_in(path: Path) -> list[Fault]:
    """Read the faults in a file. Raises ValueError for an invalid one, and says where it is."""
    held = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(held, list):
        raise ValueError(f"{path.name} holds no list of faults")
    return [_fault(item, f"{path.name}, fault {number}") for number, item in enumerate(held, 1)]


def _fault(item: Any, at: str) -> Fault:
    if not isinstance(item, dict) or item.get("kind") not in KINDS:
        raise ValueError(f"{at}: kind must be one of {', '.join(KINDS)}")
    kind = KINDS[item["kind"]]
    of_kind = {name: value for name, value in item.items() if name not in ("kind", *_PLACE)}
    if unknown := sorted(of_kind.keys() - {known.name for known in fields(kind)}):
        raise ValueError(f"{at}: {item['kind']} has no {', '.join(unknown)}")
    try:
        return Fault(kind(**of_kind), **{name: item[name] for name in _PLACE if name in item})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{at}: {error}") from None
