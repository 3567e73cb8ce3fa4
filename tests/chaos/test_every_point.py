"""Whatever fails once, and wherever: all ends as if nothing had (decisions.md D5, D6, D14).

Some points of each deed, chosen by a seed; ``FULL=1`` takes all of them, ``SEED=n`` others.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.chaos.broken_scene import Scenes
from tests.chaos.deeds import DEEDS
from tests.chaos.every_point import run_at, sample, undisturbed
from tests.chaos.record import Failed, note

SEED = os.environ.get("SEED", "1")
POINTS = 10_000 if os.environ.get("FULL") else int(os.environ.get("POINTS", "6"))

NOTED = bool(os.environ.get("FULL") or os.environ.get("POINTS"))
"""Whether the run is put on record, as those of `make chaos` are."""


@pytest.fixture
def scenes(shared_engine: Engine, tmp_path: Path) -> Scenes:
    return Scenes(shared_engine, tmp_path)


@pytest.mark.parametrize("release", ["2026.2.12", "2026.9.6"])
@pytest.mark.parametrize("name", DEEDS)
def test_one_failure_leaves_what_an_undisturbed_run_leaves(scenes: Scenes, name: str, release: str) -> None:
    deed = DEEDS[name]
    began = time.monotonic()
    plain = undisturbed(scenes, deed, release)
    failed = {}
    points = sample(plain.points, POINTS, f"{SEED} {name} {release}")
    for point in points:
        run = run_at(scenes, deed, release, point, plain.state)
        if run.faults:
            failed[str(point)] = run.faults
    if NOTED:
        took_s = time.monotonic() - began
        note(Failed(name, release, len(points), len(plain.points), took_s, len(failed)))
    assert not failed, f"SEED={SEED}: {failed}"
