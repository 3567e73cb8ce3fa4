"""Checks that writes to which a gateway answered ok had an effect, so that futile ones are not repeated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from worker.errors import PermanentError
from worker.gateway.roster_plan import RosterPlan
from worker.jobs.states import ReasonCode
from worker.roster.intents import Intent

_MOST_IN_VAIN = 2
_SHOWN = 4


class WriteCheck:
    """Compares the changes still to be made before and after each write. ``writes``: how many writes were
    answered ok."""

    def __init__(self) -> None:
        self.writes = 0
        self._outstanding: Any = None
        self._wrote = False
        self._without_effect = 0

    def before_write(self, plan: RosterPlan, unwanted: Sequence[Intent]) -> None:
        """Record the changes still to be made. Raises PermanentError if they are the same after two rounds of
        writes in a row that were answered ok."""
        outstanding = (plan.document, [intent.openclaw_id for intent in unwanted])
        same = self._wrote and outstanding == self._outstanding
        self._without_effect = self._without_effect + 1 if same else 0
        self._outstanding, self._wrote = outstanding, False
        if self._without_effect == _MOST_IN_VAIN:
            raise PermanentError(
                f"The gateway answered ok to {_MOST_IN_VAIN} config writes, but what they were for is as"
                f" before: {_outstanding_changes(plan, unwanted)}. Either its release does not take that, or"
                " something puts the file back: correct openclaw.json by hand, or see what else writes it.",
                reason_code=ReasonCode.GATEWAY_REFUSED,
            )

    def record_writes(self, writes: int) -> None:
        """Record that ``writes`` more writes were answered ok."""
        self.writes += writes
        self._wrote = writes > 0


def _outstanding_changes(plan: RosterPlan, unwanted: Sequence[Intent]) -> str:
    parts = [f"{key} ({', '.join(sorted(patch))})" for key, patch in sorted(plan.patches.items())]
    if plan.document is not None and not parts:
        parts = ["the heartbeat visibility of the channels"]
    parts += [f"{intent.openclaw_id} (to be removed)" for intent in unwanted]
    return ", ".join(parts[:_SHOWN]) + (f" and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else "")
