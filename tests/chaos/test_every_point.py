"""Whatever fails once, and wherever: all ends as if nothing had (decisions.md D5, D6, D14).

Some points of each deed, chosen by a seed; ``FULL=1`` takes all of them, ``SEED=n`` others.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.chaos.broken_scene import Scenes
from tests.chaos.deeds import DEEDS
from tests.chaos.every_point import run_at, sample, undisturbed

SEED = os.environ.get("SEED", "1")
POINTS = 10_000 if os.environ.get("FULL") else int(os.environ.get("POINTS", "6"))


@pytest.fixture
def scenes(shared_engine: Engine, tmp_path: Path) -> Scenes:
    return Scenes(shared_engine, tmp_path)


@pytest.mark.parametrize("release", ["2026.2.12", "2026.9.6"])
@pytest.mark.parametrize("name", DEEDS)
def test_one_failure_leaves_what_an_undisturbed_run_leaves(scenes: Scenes, name: str, release: str) -> None:
    deed = DEEDS[name]
    plain = undisturbed(scenes, deed, release)
    failed = {}
    for point in sample(plain.points, POINTS, f"{SEED} {name} {release}"):
        run = run_at(scenes, deed, release, point, plain.state)
        if run.faults:
            failed[str(point)] = run.faults
    assert not failed, f"SEED={SEED}: {failed}"
