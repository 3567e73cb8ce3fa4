"""The clock goes on whatever it meets, and says so once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from worker import dispatcher as module
from worker.database_gate import DatabaseGate
from worker.dispatcher import Dispatcher


def test_what_stumbles_at_every_tick_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    def poisoned(*_: Any) -> int:
        raise UnicodeError("a row that nobody can publish")

    monkeypatch.setattr(module, "publish_due", poisoned)
    monkeypatch.setattr(
        module, "WorkerRow", lambda *_: SimpleNamespace(probe=lambda: None, refresh=lambda: None)
    )
    dispatcher = Dispatcher(cast(Any, SimpleNamespace(engine=None, send=None)), DatabaseGate())
    for _ in range(5):
        dispatcher.tick()
    assert [record.message for record in caplog.records if record.exc_info] == [
        "the dispatcher stumbled, and tries again at each tick"
    ]
    monkeypatch.setattr(module, "publish_due", lambda *_: 0)
    dispatcher.tick()
    assert caplog.records[-1].message == "publishing again"
