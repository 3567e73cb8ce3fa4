"""How far a sync has compared its agents, from what their gateway answered."""

from __future__ import annotations

from uuid import UUID

import pytest

from worker.gateway.errors import CallTimedOut, ConnectionLost, GatewayError, Refused
from worker.gateway.workspace_looks import NeedsMoreError
from worker.jobs.store.sync_rows import ToCompare
from worker.sync.comparison import _compared_to

LATE, SEEN = CallTimedOut("It did not answer in time."), NeedsMoreError()


def agents(*positions: int) -> list[ToCompare]:
    return [ToCompare(UUID(int=n), at, "mc", None, [], True, 0.0) for n, at in enumerate(positions)]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ((SEEN, SEEN, SEEN), 5),
        ((SEEN, LATE, LATE), 3),
        ((SEEN, Refused("No."), LATE), 4),
        ((LATE, SEEN, SEEN), 5),  # the look before has stopped there
        ((LATE, LATE, LATE), 5),
        ((SEEN, ConnectionLost("It broke."), SEEN), 3),
    ],
)
def test_it_is_as_far_as_the_gateway_has_answered(
    answers: tuple[NeedsMoreError | GatewayError, ...], expected: int
) -> None:
    asked = agents(3, 4, 5)
    assert _compared_to(asked, asked, answers, again=False) == expected


def test_an_outage_is_one_of_the_gateway_unless_it_comes_again() -> None:
    asked = agents(3, 4)
    with pytest.raises(ConnectionLost):
        _compared_to(asked, asked, [ConnectionLost("It broke.")] * 2, again=False)
    assert _compared_to(asked, asked, [ConnectionLost("It broke.")] * 2, again=True) == 4


def test_each_look_gets_further() -> None:
    asked = agents(3, 3, 4)
    assert _compared_to(asked, asked, [SEEN, LATE, SEEN], again=False) == 3
