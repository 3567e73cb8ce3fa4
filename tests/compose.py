"""Runs `docker-compose` on our compose files; `docker-compose config` needs no container engine."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FILES = ("docker-compose.yml", "docker-compose.mission-control.yml")
FILLED_IN = {
    "POSTGRES_PASSWORD": "p0stgres",
    "REDIS_PASSWORD": "r3dis",
    "BASE_URL": "https://mission-control.example",
    "FLOWER_BASIC_AUTH": "operator:fl0wer",
    "OPENCLAW_GATEWAY_TOKEN": "g4teway",
}
"""The variables of .env.example that an operator must fill in, for all profiles."""


def program(name: str) -> str:
    """The path of a program of the development set-up; skips the test if this machine has no build of it."""
    found = Path(sys.executable).with_name(name)
    if not found.exists() and (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip(f"{name} does not come for this machine")
    return str(found)


def compose(
    *arguments: str, environment: Mapping[str, str], files: tuple[str, ...] = FILES[:1]
) -> subprocess.CompletedProcess[str]:
    """Run `docker-compose` with ``arguments`` and only the variables in ``environment``."""
    chosen = [part for file in files for part in ("-f", file)]
    return subprocess.run(
        [program("docker-compose"), "--env-file", "/dev/null", *chosen, *arguments],
        env={"PATH": "/nowhere", **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@cache
def configured(files: tuple[str, ...] = FILES[:1], *, with_mission_control: bool = False) -> dict[str, Any]:
    """The project with the profiles gateway and metrics, as `docker-compose config` prints it."""
    environment = dict(FILLED_IN)
    if with_mission_control:
        del environment["POSTGRES_PASSWORD"]
        environment["MISSION_CONTROL_DATABASE_URL"] = "postgresql+psycopg://u:p@mc/mission_control"
    profiles = ("--profile", "gateway", "--profile", "metrics")
    made = compose(*profiles, "config", "--format", "json", environment=environment, files=files)
    assert made.returncode == 0, made.stderr
    project: dict[str, Any] = json.loads(made.stdout)
    return project


def variables_of(text: str) -> set[str]:
    """The names of the variables that compose replaces in ``text``; `$$` is a dollar sign."""
    return set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", text))
