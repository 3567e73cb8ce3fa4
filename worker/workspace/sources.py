"""Where templates come from: the shipped ones, and a folder of an operator's own in front of them."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import BaseLoader, ChoiceLoader, FileSystemLoader, PackageLoader

_SHIPPED = "templates"


@cache
def shipped() -> frozenset[str]:
    """The paths of the shipped templates, as ``shared/SOUL.md.j2``."""
    root = files(_SHIPPED)
    folders = (folder for folder in root.iterdir() if folder.is_dir())
    return frozenset(
        f"{folder.name}/{file.name}"
        for folder in folders
        for file in folder.iterdir()
        if file.name.endswith(".j2")
    )


def check(folder: Path) -> None:
    """Raise ValueError for a folder that is not there, or that holds a template which would replace none of
    the shipped ones."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    theirs = {path.relative_to(folder).as_posix() for path in folder.rglob("*.j2")}
    strange = sorted(theirs - shipped())
    if strange:
        raise ValueError(
            f"{folder} holds {strange[0]}, which takes the place of no shipped template: there are"
            f" {', '.join(sorted(shipped()))}"
        )


def loader(folder: Path | None) -> BaseLoader:
    """The shipped templates, behind those of ``folder``."""
    package = PackageLoader(_SHIPPED, "")
    return package if folder is None else ChoiceLoader([FileSystemLoader(folder), package])
