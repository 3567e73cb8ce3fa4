"""When a worker gives a sign of life: while its clock ticks and its consumer turns, and not else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from worker import dispatcher
from worker.runtime.services import Services


class Counted(dispatcher.Dispatcher):
    """Tells of its third tick: what the first two did is done."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self.third = threading.Event()
        self._ticks = 0

    def tick(self) -> None:
        self._ticks += 1
        if self._ticks == 3:
            self.third.set()
        super().tick()


@pytest.fixture
def ticking(hands: Callable[..., Services], tmp_path: Path) -> Callable[[], Path]:
    """Lets a clock tick three times; the file of its sign."""

    def run() -> Path:
        sign = tmp_path / "sign"
        made = Counted(hands(health_file=sign, dispatch_interval_s=0.05))
        made.start()
        assert made.third.wait(60)
        made.stop()
        return sign

    return run


def test_a_worker_that_works_gives_a_sign(ticking: Callable[[], Path]) -> None:
    assert ticking().exists()


def test_a_dispatcher_alone_is_no_sign_of_life(
    ticking: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "_CONSUMER_SILENCE_S", 0.0)  # heard of longer ago
    assert not ticking().exists()
