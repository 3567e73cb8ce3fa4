"""Which OpenClaw releases a test runs on."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

USUAL = ("2026.2.12", "2026.3.13", "2026.9.6")
"""Every test runs on these; on any other release, only the tests that name it."""
ON_DEMAND = ("2026.2.26", "2026.7.1")
"""What these do differently is known, and no test but those that name them looks at it."""


def runs_here(item: pytest.Item) -> bool:
    """False where the ``releases`` marks of a test leave out the release that it would run on."""
    release = release_of(item)
    return release is None or selects(release, item.iter_markers("releases"))


def selects(release: str, marks: Iterable[pytest.Mark]) -> bool:
    """Whether ``releases`` marks let a test run on ``release``: the usual ones and those named, or, where a
    mark says ``only=True``, those named alone."""
    found = list(marks)
    named = any(release in mark.args for mark in found)
    return named or (release in USUAL and not any(mark.kwargs.get("only") for mark in found))


def release_of(item: pytest.Item) -> str | None:
    """The release that the command line gives to the test's gateway; None for a test without one."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    for name in ("world", "target"):
        if name in parameters:
            return str(parameters[name]).partition(":")[2]
    if "installed_openclaw" in getattr(item, "fixturenames", ()):
        return str(item.config.getoption("--openclaw"))
    return None
