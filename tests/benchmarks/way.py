"""What every way of doing the work has to offer, and what the ways share."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from uuid import UUID

from worker.workspace.files import template_paths
from worker.workspace.template_sources import shipped
from worker.workspace.templates import source_of

ONE, ALL = ("SOUL.md",), tuple(template_paths("member"))
"""Files whose templates change: one of each agent, or every one."""


class Way(Protocol):
    """One way to serve a fleet. Each method does one deed for all agents and returns when it is done."""

    def provision(self, agents: list[UUID]) -> None:
        """Bring agents to life that are on no gateway yet, and wake each once."""

    def sync(self) -> None:
        """Bring all agents up to date."""

    def rotate(self) -> None:
        """Give each agent a new token."""

    def singles(self) -> None:
        """Bring all agents up to date by a request for each, all asked for at once."""

    def delete(self) -> None:
        """Take all agents off their gateway."""

    def close(self) -> None:
        """Stop what the way has started."""


class Templates:
    """A folder of an operator's own templates, of which some differ from the shipped ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._version = 0
        for path in shipped():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(source_of(path, None))

    def change(self, names: tuple[str, ...]) -> None:
        """Make the renderings of these files differ from all before."""
        self._version += 1
        for name in names:
            path = template_paths("member")[name]
            text = source_of(path, None).rstrip()
            (self.folder / path).write_text(f"{text}\n\nVersion {self._version} of the bench.\n")
        time.sleep(0.02)  # a worker looks at the time of a template's file


def timed(deed: Callable[[], None]) -> float:
    """The seconds that a deed takes."""
    began = time.monotonic()
    deed()
    return time.monotonic() - began
