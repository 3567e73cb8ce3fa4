"""What a sync says of itself for programs, from how its agents ended (interfaces.md 4)."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from worker.sync.result import Row, ending


def row(status: str, code: str | None = None, *, is_main: bool = False, outcome: str | None = None) -> Row:
    return Row(uuid4(), "Ada", None, is_main, status, "files", "No.", (), {}, None, outcome, code)


@pytest.mark.parametrize(
    ("rows", "options", "code"),
    [
        ([row("succeeded")], {}, None),
        ([row("succeeded"), row("skipped", "board_paused", outcome="paused")], {}, None),
        ([row("succeeded"), row("failed", "no_token")], {}, "no_token"),
        ([row("failed", "no_token"), row("skipped", "no_token")], {}, "no_token"),
        ([row("failed", "no_token"), row("failed", "gateway_refused", is_main=True)], {}, "agents_failed"),
        ([row("failed")], {}, "agents_failed"),
        (
            [row("failed", "no_token"), row("not_attempted", "gateway_unreachable")],
            {},
            "gateway_unreachable",
        ),
        ([row("not_attempted")], {}, "agents_failed"),
        ([row("succeeded")], {"include_main": True}, "agents_failed"),
        ([row("failed", "no_token"), row("cancelled", "cancelled")], {"cancelled": True}, "cancelled"),
    ],
)
def test_the_code_is_the_one_that_the_agents_share(
    rows: list[Row], options: dict[str, Any], code: str | None
) -> None:
    cancelled = options.pop("cancelled", False)
    ended = ending(uuid4(), "g", options, rows, cancelled=cancelled)
    assert ended.code == code
    assert (ended.status == "succeeded") == (code is None)
