"""npm with a registry on loopback, a cache and a home of the test's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.lab.openclaw.registry import Registry

NEW, OLD = "2026.9.6", "2026.2.12"
OUT_OF_REACH = "git+https://127.0.0.1:9/libsignal.git"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """Knows the releases ``NEW`` and ``OLD``, whose gateways end as soon as they start."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [
        name for name in os.environ if name.lower().startswith(("npm_config", "http_proxy", "https_proxy"))
    ]:
        monkeypatch.delenv(name)
    with Registry({NEW: {}, OLD: {"libsignal": OUT_OF_REACH}}) as registry:
        monkeypatch.setenv("npm_config_registry", registry.url)
        monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
        monkeypatch.setenv("npm_config_fetch_retries", "0")
        yield registry
