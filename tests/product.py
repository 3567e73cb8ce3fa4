"""The product's own source, for tests that check its text instead of running it."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).parents[1]


@functools.cache
def modules(*, but: str) -> dict[str, ast.Module]:
    """The parsed modules of worker, tasks and models, by path; paths that begin with ``but`` are left out."""
    paths = [path for folder in ("worker", "tasks", "models") for path in (ROOT / folder).rglob("*.py")]
    names = {path.relative_to(ROOT).as_posix(): path for path in paths}
    return {
        name: ast.parse(path.read_text(encoding="utf-8"))
        for name, path in names.items()
        if not name.startswith(but)
    }
