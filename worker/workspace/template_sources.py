"""Finds templates: the shipped ones, and an operator's own folder that takes precedence over them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NoReturn

from jinja2 import BaseLoader, ChoiceLoader, Environment, FileSystemLoader, PackageLoader

_SHIPPED = "templates"
OWN = "TEMPLATES_DIR/"
"""Prefix of the path of an operator's own template in sentences."""


@cache
def shipped() -> frozenset[str]:
    """The paths of the shipped templates, such as ``shared/SOUL.md.j2``."""
    root = files(_SHIPPED)
    folders = (folder for folder in root.iterdir() if folder.is_dir())
    return frozenset(
        f"{folder.name}/{file.name}"
        for folder in folders
        for file in folder.iterdir()
        if file.name.endswith(".j2")
    )


def sources_sha256(folder: Path | None) -> str:
    """A hash of all shipped templates and of those in ``folder``, in hex: together they are one version.

    Raises OSError for a template that cannot be read.
    """
    found = hashlib.sha256()
    for path in sorted(shipped()):
        own = folder / path if folder is not None else None
        source = own if own is not None and own.is_file() else files(_SHIPPED) / path
        text = source.read_bytes()
        found.update(f"{path} {len(text)}\n".encode() + text)
    return found.hexdigest()


def check_folder(folder: Path) -> None:
    """Raise ValueError for a folder of templates that is missing, cannot be read or holds an unusable file.

    Such a file is a template that overrides no shipped one, is not UTF-8 or is not a plain file, or a file
    that seems meant as a template but has no .j2 at the end of its name.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    for path in sorted(_entries(folder)):
        name = path.relative_to(folder).as_posix()
        if any(part.startswith(".") for part in Path(name).parts):
            continue
        if path.suffix == ".j2":
            _check_template(folder, path, name)
        elif path.is_dir():
            continue
        elif path.suffix.lower() == ".j2":
            raise ValueError(f"{folder} holds {name}, which is not used: write its .j2 in lower case")
        elif _is_meant_for_a_template(name):
            raise ValueError(
                f"{folder} holds {name}, which is not used: a template's name ends with .j2, so rename it to"
                f" {name}.j2, or remove it"
            )


def _entries(folder: Path) -> Iterator[Path]:
    def unreadable(error: OSError) -> NoReturn:
        raise ValueError(f"{error.filename} cannot be read: {error.strerror}") from None

    for parent, folders, names in os.walk(folder, onerror=unreadable):
        yield from (Path(parent, name) for name in (*folders, *names))


def _check_template(folder: Path, path: Path, name: str) -> None:
    if name not in shipped():
        raise ValueError(
            f"{folder} holds {name}, which replaces no shipped template: those are"
            f" {', '.join(sorted(shipped()))}"
        )
    if path.exists() and not path.is_file():
        raise ValueError(f"{OWN}{name} is not a plain file, so it is not used: put a plain file in its place")
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = 1 + error.object[: error.start].count(b"\n")
        raise ValueError(f"{OWN}{name}, line {line}: it is not UTF-8 text: save it as UTF-8") from None
    except OSError as error:
        raise ValueError(f"{OWN}{name} cannot be read: {error.strerror}") from None


def _is_meant_for_a_template(name: str) -> bool:
    """Whether an operator may expect the file to be used.

    It is in a template folder, or named like a template. A README beside those folders is not.
    """
    names = {path.rpartition("/")[2].removesuffix(".md.j2").lower() for path in shipped()}
    stem = name.rpartition("/")[2].split(".", 1)[0].lower()
    folders = {path.partition("/")[0] for path in shipped()}
    return name.partition("/")[0] in folders or stem in names


def loader(folder: Path | None) -> BaseLoader:
    """A loader of the shipped templates; those in ``folder``, if given, take precedence."""
    package = PackageLoader(_SHIPPED, "")
    if folder is None:
        return package
    # Editors on Windows begin a file with a byte order mark, which is not part of the text.
    return ChoiceLoader([FileSystemLoader(folder, encoding="utf-8-sig"), _ShippedLoader(folder, package)])


class _ShippedLoader(BaseLoader):
    """Loads the shipped templates. A compiled one is out of date once ``folder`` has one of the same path."""

    def __init__(self, folder: Path, shipped: BaseLoader) -> None:
        self._folder = folder
        self._shipped = shipped

    def get_source(
        self, environment: Environment, template: str
    ) -> tuple[str, str | None, Callable[[], bool] | None]:
        source, filename, _ = self._shipped.get_source(environment, template)
        return source, filename, lambda: not (self._folder / template).exists()
