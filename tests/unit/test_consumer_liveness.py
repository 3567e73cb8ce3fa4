"""A worker's consumer gives a sign while its event loop turns, whatever Celery's heartbeat does."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from kombu.asynchronous import Hub

from worker import consumer_liveness as module


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(module, "EVERY_S", 0.02)
    made = Hub()
    yield made
    made.close()


def test_it_tells_while_the_loop_turns_and_stops_with_the_connection(hub: Any) -> None:
    told: list[float] = []
    consumer = SimpleNamespace(timer=hub.timer)
    step = module.liveness_step(lambda: told.append(time.monotonic()))(consumer)
    step.start(consumer)

    def turn(seconds: float) -> int:
        before, until = len(told), time.monotonic() + seconds
        while time.monotonic() < until:
            hub.run_once()
        return len(told) - before

    assert turn(0.3) >= 2
    before = len(told)
    time.sleep(0.1)
    assert len(told) == before, "a loop that is stuck gives no sign"
    step.stop(consumer)
    turn(0.01)
    hub.timer.call_after(0.01, lambda: None)  # something for the loop to wait for
    assert turn(0.1) == 0


@pytest.mark.parametrize("without", [{}, {"without_heartbeat": True, "without_gossip": True}])
def test_celerys_heartbeat_is_not_asked(monkeypatch: pytest.MonkeyPatch, without: dict[str, bool]) -> None:
    assert module.liveness_step(lambda: None)(SimpleNamespace(), **without).enabled
