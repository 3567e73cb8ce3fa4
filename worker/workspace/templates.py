"""Renders a template, either a shipped one or an operator's own. Errors name the template and the line."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path, PurePath
from traceback import walk_tb
from typing import Any

from jinja2 import Environment, StrictUndefined, TemplateNotFound, TemplateSyntaxError
from jinja2.sandbox import safe_range

from worker.printable import utf8
from worker.workspace.overrides import TemplateError
from worker.workspace.template_sources import OWN, loader
from worker.workspace.tokens import PLACEHOLDER

_OUTPUT_LIMIT = 1024 * 1024
_COMPILING = threading.Lock()
"""Held while compiling, so that threads which start together do not each compile every template."""


def compile_templates(paths: Iterable[str], folder: Path | None = None) -> None:
    """Compile templates in advance. A broken one is skipped; rendering it reports the error."""
    for path in paths:
        with _COMPILING, contextlib.suppress(Exception):
            _environment(folder).get_template(path)


def render_template(path: str, context: Mapping[str, Any], folder: Path | None = None) -> str:
    """Render the template at ``path``, from ``folder`` if it has one, else the shipped one.

    Raises TemplateError for anything that goes wrong, including Python's own errors (recursion, memory).
    """
    try:
        with _COMPILING:
            template = _environment(folder).get_template(path)
        return utf8("".join(_bounded(template.generate(context))))
    except TemplateSyntaxError as error:
        name = _name_of(PurePath(error.name), folder) if error.name else path
        line, reason = error.lineno, error.message or "syntax error"
    except UnicodeDecodeError as error:
        bytes_before = error.object[: error.start] if isinstance(error.object, bytes) else b""
        line, reason = 1 + bytes_before.count(b"\n"), "it is not UTF-8 text: save it as UTF-8"
        name = _undecodable(path, folder)
    except TemplateNotFound as error:
        name, line = _place_of(error, path, folder)
        reason = f"it includes {error.name}, which is not there"
    except OSError as error:
        name, line, reason = path, 1, f"it cannot be read ({error.strerror or type(error).__name__})"
    except Exception as error:
        name, line = _place_of(error, path, folder)
        reason = _reason(error)
        if isinstance(error, _TooLongError):
            reason += _longest_of(context)
    raise TemplateError(shown_path(name, folder), line, reason) from None


class _TooLongError(Exception):
    """A rendering exceeds the limit."""


def _bounded(chunks: Iterable[str]) -> Iterator[str]:
    """The chunks of a rendering, limited in size: an operator's endless loop would take down the worker."""
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > _OUTPUT_LIMIT:
            raise _TooLongError(f"its rendering is longer than {_OUTPUT_LIMIT // 1024} KB")
        yield chunk


def check_token(path: str, text: str, carries: bool, folder: Path | None = None) -> None:
    """Raise TemplateError unless a rendering has the token's placeholder once (``carries``) or never."""
    found = text.count(PLACEHOLDER)
    if found == int(carries):
        return
    reason = (
        f"auth_token must stand in it exactly once, and stands there {found} times: its agents could not be"
        " given their token"
        if carries
        else "auth_token may stand in the TOOLS template alone: take it out"
    )
    raise TemplateError(shown_path(path, folder), _first_line_with("auth_token", path, folder), reason)


def shown_path(path: str, folder: Path | None) -> str:
    """A template's path as messages show it, with TEMPLATES_DIR before the path of an operator's own."""
    return f"{OWN}{path}" if folder is not None and (folder / path).is_file() else path


def source_of(path: str, folder: Path | None) -> str:
    """The source of the template at ``path``, from ``folder`` if it has one, else the shipped one."""
    return loader(folder).get_source(_environment(folder), path)[0]


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deep, or includes itself"
    if isinstance(error, _TooLongError):
        return str(error)
    if isinstance(error, SyntaxError):
        return error.msg  # the rest is about the program into which Jinja compiled the template
    says = str(error).strip()
    return f"{says or 'it cannot be rendered'} ({type(error).__name__})"


def _longest_of(context: Mapping[str, Any]) -> str:
    """What a rendering that is too long has from its longest value, if that alone makes up much of it."""
    texts = {name: value for name, value in context.items() if isinstance(value, str)}
    name = max(texts, key=lambda name: len(texts[name]), default="")
    length = len(texts.get(name, ""))
    if length * 10 < _OUTPUT_LIMIT:
        return ""
    return f", of which {name} alone has {length:,} characters: shorten that"


def _place_of(error: Exception, path: str, folder: Path | None) -> tuple[str, int]:
    """The template and line of the error: those of the innermost template being rendered."""
    if isinstance(error, TemplateNotFound) and error.name == path:
        return path, 1
    place = path, 1
    for frame, line in walk_tb(error.__traceback__):
        file = PurePath(frame.f_code.co_filename)
        if file.suffix == ".j2":
            place = _name_of(file, folder), line
    return place


def _name_of(file: PurePath, folder: Path | None) -> str:
    """A template's path within its folder; Jinja names some by their whole path."""
    inside = folder is not None and file.is_relative_to(folder)
    return (file.relative_to(folder) if inside and folder else PurePath(*file.parts[-2:])).as_posix()


def _undecodable(path: str, folder: Path | None) -> str:
    """The template that is not UTF-8: the one at ``path``, or one that it includes."""
    if folder is None:
        return path
    for file in (folder / path, *sorted(folder.rglob("*.j2"))):
        try:
            file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            return file.relative_to(folder).as_posix()
        except OSError:
            continue
    return path


def _first_line_with(word: str, path: str, folder: Path | None) -> int:
    with contextlib.suppress(Exception):
        lines = source_of(path, folder).splitlines()
        return next((at for at, line in enumerate(lines, 1) if word in line), 1)
    return 1


class _Verbatim(str):
    """Text that a filter has already made safe for lines of its own."""


def _one_line(value: Any) -> Any:
    return " ".join(value.split()) if type(value) is str else value


def _quoted(value: str) -> _Verbatim:
    lines = (line.rstrip() for line in value.strip().splitlines())
    return _Verbatim("\n".join(f"> {line}" if line else ">" for line in lines))


def _json(value: str) -> _Verbatim:
    # Only used in quoted here-documents, where a shell changes nothing.
    return _Verbatim(json.dumps(" ".join(value.split()), ensure_ascii=False))


@cache
def _environment(folder: Path | None) -> Environment:
    """The Jinja environment.

    Each template is compiled once per process; those in ``folder`` again when they change.

    Everything that a template prints is folded onto one line, unless it went through ``quoted`` (a Markdown
    quotation) or ``json``. So no value can start a line of its own and plant a heading or a credential there.
    """
    environment = Environment(
        loader=loader(folder),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=folder is not None,
        cache_size=-1,
        finalize=_one_line,
    )
    environment.globals["range"] = safe_range
    environment.globals.pop("lipsum")
    environment.filters["quoted"] = _quoted
    environment.filters["json"] = _json
    return environment
