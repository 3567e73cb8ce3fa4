"""Sentences that the program can say, as its source has them: `…` in the place of what is filled in."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from worker.gateway import errors

ROOT = Path(__file__).parents[3]
_ERRORS = {name for name in vars(errors) if name[0].isupper()}


def literals(file: Path) -> Iterator[str]:
    """Every string of ``file``, doc strings included."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if (text := _text(node)) is not None:
            yield text


def raised(file: Path) -> Iterator[str]:
    """The sentences that ``file`` makes errors of."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and _is_error(node.func):
            yield from (text for given in node.args if (text := _text(given)) is not None)


def _is_error(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in _ERRORS or bool(re.fullmatch(r"_?[A-Z]\w*(Error|Refused|Failed)", name))


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.replace("%s", "…")
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) or "…" for part in node.values)
    if isinstance(node, ast.IfExp):
        return _text(node.body) or _text(node.orelse)
    return None
