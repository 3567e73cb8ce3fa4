from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from worker import health


def look(path: Path | None) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.defpath, **({"HEALTH_FILE": str(path)} if path else {})}
    command = [sys.executable, "-m", "worker.health"]
    root = Path(__file__).parents[2]
    return subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True)


def test_a_process_that_gave_a_sign_just_now_is_well(tmp_path: Path) -> None:
    health.touch(tmp_path / "sign")
    assert look(tmp_path / "sign").returncode == 0


def test_a_process_that_fell_silent_is_not(tmp_path: Path) -> None:
    sign = tmp_path / "sign"
    health.touch(sign)
    long_ago = time.time() - health.LONGEST_SILENCE_S - 5
    os.utime(sign, (long_ago, long_ago))
    told = look(sign)
    assert told.returncode == 1
    assert "No sign of life for 6" in told.stderr


def test_a_process_that_never_began_is_not(tmp_path: Path) -> None:
    told = look(tmp_path / "sign")
    assert (told.returncode, told.stderr.startswith("No sign of life yet")) == (1, True)


def test_nobody_knows_without_a_file_to_look_at() -> None:
    assert look(None).returncode == 2


def test_a_sign_that_cannot_be_given_stops_nobody(tmp_path: Path) -> None:
    health.touch(tmp_path / "nowhere" / "sign")
    health.touch(None)


@pytest.mark.parametrize("module", ["sqlalchemy", "celery", "pydantic", "worker.settings"])
def test_a_look_loads_nothing_heavy(module: str) -> None:
    statement = f"import sys, worker.health; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", statement], cwd=Path(__file__).parents[2]).returncode == 0


def test_the_check_reads_the_name_as_a_worker_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HEALTH_FILE", " ~/sign ")
    health.touch(tmp_path / "sign")
    assert health.main() == 0
