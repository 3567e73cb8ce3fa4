"""Checks that writes which a gateway answered ok changed something, so that futile ones are not repeated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from worker.errors import PermanentError
from worker.gateway.roster_plan import RosterPlan
from worker.jobs.states import ReasonCode
from worker.roster.intents import Intent

_FRUITLESS = 2
_SHOWN = 4


class WriteCheck:
    """Compares the outstanding changes before and after each write. ``writes``: how many were answered ok."""

    def __init__(self) -> None:
        self.writes = 0
        self._outstanding: Any = None
        self._wrote = False
        self._fruitless = 0

    def before_write(self, plan: RosterPlan, unwanted: Sequence[Intent]) -> None:
        """Record the outstanding changes. Raises PermanentError if two writes in a row were answered ok and
        left them as they were."""
        outstanding = (plan.document, [intent.openclaw_id for intent in unwanted])
        same = self._wrote and outstanding == self._outstanding
        self._fruitless = self._fruitless + 1 if same else 0
        self._outstanding, self._wrote = outstanding, False
        if self._fruitless == _FRUITLESS:
            raise PermanentError(
                f"The gateway answered ok to {_FRUITLESS} config writes, but what they were for is as before:"
                f" {_told(plan, unwanted)}. Either its release does not take that, or something puts the file"
                " back: correct openclaw.json by hand, or see what else writes it.",
                reason_code=ReasonCode.GATEWAY_REFUSED,
            )

    def record_writes(self, writes: int) -> None:
        """Record that ``writes`` more writes were answered ok."""
        self.writes += writes
        self._wrote = writes > 0


def _told(plan: RosterPlan, unwanted: Sequence[Intent]) -> str:
    said = [f"{key} ({', '.join(sorted(patch))})" for key, patch in sorted(plan.patches.items())]
    if plan.document is not None and not said:
        said = ["the heartbeat visibility of the channels"]
    said += [f"{intent.openclaw_id} (to be removed)" for intent in unwanted]
    return ", ".join(said[:_SHOWN]) + (f" and {len(said) - _SHOWN} more" if len(said) > _SHOWN else "")
