"""Commands that ask for a job of their kind, wait for it and do nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from worker.cli.console import Json
from worker.cli.options import Make, from_request
from worker.cli.submit import NoWait, ask
from worker.jobs.kinds import KINDS


def command_of(name: str, line: str) -> Callable[..., None]:
    """The command of the kind that has it by that name. ``line``: what it does, in a sentence."""
    kind = next(kind for kind in KINDS.values() if kind.command == name)

    @from_request(kind.request)
    def command(*, make: Make[Any], no_wait: NoWait = False, as_json: Json = False) -> None:
        ask(make, no_wait=no_wait, as_json=as_json)

    command.__doc__ = f"{line} Exits 1 if that fails."
    return command
