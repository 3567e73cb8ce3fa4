"""Which OpenClaw releases a test runs on."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

USUAL = ("2026.2.12", "2026.3.13", "2026.9.6")
"""The releases that every test runs on; on any other release, only the tests that name it run."""
ON_DEMAND = ("2026.2.26", "2026.7.1")
"""Releases whose differences are known; only the tests that name them run on them."""


def runs_here(item: pytest.Item) -> bool:
    """Whether a test's ``releases`` marks select its release; True if it has none."""
    release = release_of(item)
    return release is None or selects(release, item.iter_markers("releases"))


def selects(release: str, marks: Iterable[pytest.Mark]) -> bool:
    """Whether ``releases`` marks select ``release``: they select the usual releases and those that they name,
    or, if a mark says ``only=True``, only those that they name."""
    found = list(marks)
    named = any(release in mark.args for mark in found)
    return named or (release in USUAL and not any(mark.kwargs.get("only") for mark in found))


def release_of(item: pytest.Item) -> str | None:
    """The release of the test's gateway, from its parameters or the command line, or None."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    for name in ("world", "target"):
        if name in parameters:
            return str(parameters[name]).partition(":")[2]
    if "installed_openclaw" in getattr(item, "fixturenames", ()):
        return str(item.config.getoption("--openclaw"))
    return None
