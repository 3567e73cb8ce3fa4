"""Printing: the two consoles, tables, JSON, and how times, sizes and names are written.

What a page says is in `worker.cli.views`; the columns of a list are in its command.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from worker.masking import mask, mask_all

Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]
"""The option of every command that prints."""
_SHOWN = 5
_QUOTABLE = frozenset(" -_.,:;/()+=@#&*?<>[]{}|'")


def _console(*, stderr: bool) -> Console:
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False)


out = _console(stderr=False)
err = _console(stderr=True)


@dataclass(frozen=True)
class Marks:
    """Marks for the states of a job, in characters that the terminal can show."""

    done: str
    failed: str
    busy: str
    ahead: str


def marks(console: Console) -> Marks:
    """The marks that ``console`` can encode."""
    if console.options.ascii_only:
        return Marks("+", "x", "*", ".")
    return Marks("\u2713", "\u2717", "\u25cf", "\u00b7")


def plain(text: object) -> str:
    """``text`` without secrets and control characters: others write the names and errors that we print."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in mask(str(text)))


def say(*lines: RenderableType, console: Console | None = None, verbatim: bool = False) -> None:
    """Print lines, on stdout by default. Without a terminal they are not wrapped, so that grep finds them.

    ``verbatim``: nor on a terminal, so that what is copied from it is the text itself, such as a diff.
    """
    console = console or out
    for line in lines:
        shown = plain(line) if isinstance(line, str) else line
        whole = verbatim or not console.is_terminal
        console.print(shown, soft_wrap=isinstance(line, str | Text) and whole)


def complain(sentence: str) -> None:
    """Print an error on stderr, in red."""
    say(Text(plain(sentence), style="red"), console=err)


def note(sentence: str) -> None:
    """Print a remark on stderr, dimmed, apart from what stdout carries."""
    say(Text(plain(sentence), style="dim"), console=err)


def emit(document: Any, *, public: bool = False) -> None:
    """Print the one JSON document on stdout, times and ids as text. ``public``: it holds no secret and need
    not be masked."""
    shown = document if public else mask_all(document)
    sys.stdout.write(json.dumps(shown, indent=2, default=str) + "\n")
    sys.stdout.flush()


def show_list(items: Sequence[Mapping[str, Any]], shown: Table, *, nothing: str, as_json: bool) -> None:
    """Print a list: as JSON, as the table ``shown`` of it, or as the sentence ``nothing`` if it is empty."""
    if as_json:
        emit(list(items))
    else:
        say(shown if items else nothing)


def table(*columns: str, last: str, folds: bool = False, yields: str | None = None) -> Table:
    """A table without lines. ``columns`` are cut at 26 characters; ``last`` gets the remaining width.

    A cell of ``last`` is cut there, or continued in the next line if the table ``folds``. ``yields``: a
    column that on a narrow terminal gives way before the others; its cells must be made by ``cut_cell``.
    """
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", expand=not folds)
    for column in columns:
        made.add_column(column, no_wrap=column != yields, overflow="ellipsis", max_width=26)
    if folds:
        made.add_column(last, overflow="fold")
    else:
        made.add_column(last, no_wrap=True, overflow="ellipsis", ratio=1, min_width=6)
    return made


def cut_cell(text: object) -> Text:
    """``text`` as a cell that is cut, and never continued in a second line."""
    return Text(plain(text), no_wrap=True, overflow="ellipsis")


def lines(*, pad: int = 0) -> Table:
    """A table without lines and headings. ``pad``: how many spaces come before each column."""
    return Table(box=None, show_header=False, pad_edge=bool(pad), padding=(0, 0 if pad else 2, 0, pad))


def fields(pairs: Iterable[tuple[str, str | Text]]) -> Padding:
    """Names and values to print below a heading, the names dimmed."""
    shown = lines()
    shown.add_column(style="dim", no_wrap=True)
    shown.add_column(overflow="fold")
    for name, value in pairs:
        shown.add_row(name, value if isinstance(value, Text) else plain(value))
    return Padding(shown, (0, 0, 0, 2))


def took(seconds: float | None) -> str:
    """A duration: ``0.84 s``, ``12.3 s``, ``4 min 10 s``, ``2 h 5 min``; "" for None."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def ago(seconds: float | None) -> str:
    """How long ago: ``just now``, ``40 s ago``, ``5 min ago``, ``3 h ago``, ``12 days ago``; "" for None."""
    if seconds is None:
        return ""
    if seconds < 2:
        return "just now"
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name} ago"
    return f"{seconds / 86_400:.0f} days ago"


def size(octets: int) -> str:
    """A size for people: ``812 B``, ``4.1 kB``, ``1.2 MB``."""
    if octets < 1000:
        return f"{octets} B"
    return f"{octets / 1000:.1f} kB" if octets < 1_000_000 else f"{octets / 1_000_000:.1f} MB"


def short(identity: object) -> str:
    """The first eight digits of an id, which every command accepts for it."""
    return str(identity)[:8]


def argument(name: str) -> str:
    """A name as it must be typed on a command line, quoted if necessary."""
    if name.replace("-", "").replace("_", "").isalnum():
        return name
    # Agents choose names, and people paste commands.
    return f'"{name}"' if all(c.isalnum() or c in _QUOTABLE for c in name) else shlex.quote(name)


def counted(count: int, noun: str) -> str:
    """The number with its noun: ``1 agent``, ``2 agents``."""
    return f"{count} {noun}{'s' * (count != 1)}"


def needing_nothing(count: int) -> str:
    """``1 needs nothing``, ``2 need nothing``."""
    return f"{count} {'needs' if count == 1 else 'need'} nothing"


def named(names: Sequence[str]) -> str:
    """The first names, as ``Ada, Ben and 3 more``."""
    shown = list(names[:_SHOWN])
    if len(names) > _SHOWN:
        return f"{', '.join(shown)} and {len(names) - _SHOWN} more"
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1]))) if shown else ""


def by_reason(items: Iterable[tuple[str, str]]) -> Iterator[str]:
    """A line for each reason, with the first of the names that it is the reason for. ``items``: names and
    reasons."""
    grouped: dict[str, list[str]] = {}
    for name, why in items:
        grouped.setdefault(why, []).append(name)
    for why, names in grouped.items():
        yield f"{named(names)}: {why}"
