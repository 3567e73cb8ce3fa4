"""``provisioner window add|list|remove``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Annotated, Any
from uuid import UUID
from zoneinfo import ZoneInfo

import typer

from worker.cli.console import Json, emit, plain, say, short, show_list, table
from worker.cli.durations import duration_of, shown_duration
from worker.cli.environment import engine
from worker.cli.errors import WrongUseError
from worker.cli.lookup import find, find_window
from worker.jobs.requests import BadRequestError
from worker.jobs.sync_windows import NeverOpensError, SyncWindow, closes_at, local, opens_at
from worker.records.sync_windows import StoredWindow, add_window, remove_window, stored_windows

app = typer.Typer(
    help="Sync windows: when a gateway may be restarted, and its agents woken.", no_args_is_help=True
)


@app.command("add")
def add(
    gateway: Annotated[str, typer.Argument(metavar="GATEWAY", help="Name or id of a gateway.")],
    cron: Annotated[str, typer.Option(metavar="EXPR", help="When it begins: '0 2 * * 6'.")],
    duration: Annotated[str, typer.Option(metavar="TIME", help="How long it lasts: 30m, 6h, 2d.")],
    *,
    allow: Annotated[
        bool, typer.Option("--allow/--deny", help="Changes happen inside it, or outside it.")
    ] = True,
    timezone: Annotated[
        str, typer.Option(metavar="NAME", help="Time zone of --cron, such as Europe/Berlin.")
    ] = "UTC",
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="It also counts for deletes, first provisions and rotations that somebody asks for."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Add a window to a gateway.

    Syncs, updates and roll-outs that restart the gateway or wake agents wait for it; what disturbs nobody
    does not. Several windows of a gateway count together: one that denies counts more than one that allows,
    and where none allows, all times are allowed. A job does not wait if it is asked for with --now.
    """
    window = SyncWindow("allow" if allow else "deny", cron, _duration(duration), timezone, everything)
    with engine().begin() as connection:
        gateway_id = find(connection, "gateway", gateway)
        try:
            key = add_window(connection, gateway_id, window)
        except BadRequestError as error:
            raise WrongUseError(str(error)) from None
        windows = stored_windows(connection, gateway_id)
    added = next(each for each in windows if each.id == key)
    if as_json:
        emit(_document(added))
        return
    effect = "allows" if window.effect == "allow" else "denies"
    say(f"Window {short(key)} of gateway {plain(added.gateway_name or '')} {effect} changes:")
    zone, start = ZoneInfo(timezone), datetime.now(UTC)
    for _ in range(3):
        start = window.next_start(start)
        say(
            f"  next  {start.astimezone(zone):%a %Y-%m-%d %H:%M %Z} to"
            f" {(start + window.duration).astimezone(zone):%a %Y-%m-%d %H:%M %Z}"
        )
    say(f"Now: {_standing([each.window for each in windows])}.")


@app.command("list")
def list_windows(
    gateway: Annotated[
        str | None, typer.Argument(metavar="GATEWAY", help="Only of this gateway: its name or id.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the windows, and whether each gateway's are open now."""
    with engine().connect() as connection:
        wanted = find(connection, "gateway", gateway) if gateway is not None else None
        found = stored_windows(connection, wanted)
    shown = table("Id", "Gateway", "Effect", "Begins", "Lasts", last="For")
    for each in found:
        shown.add_row(
            short(each.id),
            plain(each.gateway_name or "gone"),
            each.window.effect,
            f"{each.window.cron} {each.window.timezone}",
            shown_duration(each.window.duration),
            "all changes" if each.window.everything else "what disturbs",
        )
    nothing = "No window yet: provisioner window add GATEWAY --cron '0 2 * * *' --duration 2h"
    documents = [_document(each) for each in found]
    show_list(documents, shown, nothing=nothing, as_json=as_json)
    if not as_json:
        for name, windows in _by_gateway(found):
            say(f"{plain(name)}: {_standing(windows)}.")


@app.command("remove")
def remove(
    window: Annotated[str, typer.Argument(help="The window's id, or its first digits.")],
    as_json: Json = False,
) -> None:
    """Remove a window. What waits for it looks again at once."""
    with engine().begin() as connection:
        key: UUID = find_window(connection, window)
        stored = next(each for each in stored_windows(connection) if each.id == key)
        try:
            remove_window(connection, stored)
        except NeverOpensError as error:
            raise WrongUseError(f"Without this window: {error}") from None
        left = [each.window for each in stored_windows(connection, stored.gateway_id)]
    if as_json:
        emit({"id": key, "removed": True})
        return
    say(f"Window {short(key)} removed.", f"Now: {_standing(left)}.")


def _duration(given: str) -> timedelta:
    found = duration_of(given)
    if found is None:
        raise WrongUseError(f"--duration {given!r} is no time: write one like 30m, 6h or 2d.")
    return found


def _standing(windows: Sequence[SyncWindow]) -> str:
    """Whether these windows of one gateway are open now, and until when."""
    now = datetime.now(UTC)
    try:
        opens = opens_at(windows, now)
    except NeverOpensError as error:
        return str(error).rstrip(".")
    if opens is not None:
        return f"closed, opens at {local(opens, windows)}"
    closes = closes_at(windows, now)
    return "open" if closes is None else f"open until {local(closes, windows)}"


def _by_gateway(found: Sequence[StoredWindow]) -> Iterator[tuple[str, list[SyncWindow]]]:
    for _, group in groupby(found, key=lambda each: each.gateway_id):
        own = list(group)
        if own[0].gateway_name is not None:
            yield own[0].gateway_name, [each.window for each in own]


def _document(stored: StoredWindow) -> dict[str, Any]:
    window = stored.window
    return {
        "id": stored.id,
        "gateway_id": stored.gateway_id,
        "gateway_name": stored.gateway_name,
        "effect": window.effect,
        "cron": window.cron,
        "duration_s": window.duration.total_seconds(),
        "timezone": window.timezone,
        "all": window.everything,
    }
