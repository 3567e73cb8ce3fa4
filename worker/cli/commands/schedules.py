"""``provisioner schedule add|list|remove``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer

from worker.cli.commands.syncs import TypedSync, request_of
from worker.cli.console import Json, emit, plain, say, short, show_list, table
from worker.cli.durations import duration_of, shown_duration
from worker.cli.environment import engine
from worker.cli.errors import WrongUseError
from worker.cli.lookup import find_schedule
from worker.cli.options import Make, from_request
from worker.jobs import schedules
from worker.jobs.requests import BadRequestError, RollOut
from worker.jobs.schedule_spec import ScheduleSpec
from worker.jobs.schedules import Schedule

app = typer.Typer(help="Syncs that run on a schedule.", no_args_is_help=True)

_SHOWN_RUNS = 3


@app.command("add")
@from_request(
    TypedSync,
    but={"diff", "force_bootstrap", "request_id"},
    other_help={
        "dry_run": "Only look: `provisioner drift` and the metrics say what differs.",
        "webhook": "Call this webhook of the organization when each sync ends.",
    },
)
def add(
    *,
    every: Annotated[
        str | None, typer.Option(metavar="TIME", help="An interval: 30m, 6h, 1d.", show_default=False)
    ] = None,
    cron: Annotated[
        str | None,
        typer.Option(metavar="EXPR", help="Or five cron fields: '0 3 * * *'.", show_default=False),
    ] = None,
    timezone: Annotated[
        str, typer.Option(metavar="NAME", help="Time zone of --cron, such as Europe/Berlin.")
    ] = "UTC",
    make: Make[TypedSync],
    as_json: Json = False,
) -> None:
    """Sync a gateway on a schedule. Needs `celery -A worker.app beat` beside the workers."""
    spec = ScheduleSpec(_interval(every) if every else None, cron, timezone)
    with engine().begin() as connection:
        request = request_of(connection, make(connection))
        try:
            added = schedules.add(connection, request, spec)
        except BadRequestError as error:
            raise WrongUseError(str(error)) from None
    if as_json:
        emit(_document(added))
        return
    what = ("a roll-out", "Roll-outs") if isinstance(request, RollOut) else ("a sync", "Syncs")
    runs = f"Dry runs of {what[0]}" if request.dry_run else what[1]
    say(f"{runs} of gateway {added.gateway_name}, {_described(added.spec)}: schedule {short(added.id)}")
    moment = added.next_run_at
    assert moment is not None
    for _ in range(_SHOWN_RUNS):
        say(f"  next  {moment.astimezone(ZoneInfo(timezone)):%a %Y-%m-%d %H:%M:%S %Z}")
        moment = spec.after(moment, added.id)


@app.command("list")
def list_schedules(as_json: Json = False) -> None:
    """List the schedules, with their next run and how the last one went."""
    with engine().connect() as connection:
        found = schedules.all_schedules(connection)
    shown = table("Id", "Gateway", "When", "Next (UTC)", "Last", last="Options")
    for schedule in found:
        due = schedule.next_run_at.astimezone(UTC) if schedule.next_run_at else None
        shown.add_row(
            short(schedule.id),
            plain(schedule.gateway_name or "gone"),
            _described(schedule.spec),
            f"{due:%m-%d %H:%M:%S}" if due and schedule.enabled else "off",
            schedule.last_status or "none",
            plain(_options(schedule)),
        )
    nothing = "No schedule yet: provisioner schedule add GATEWAY --cron '0 3 * * *'"
    show_list([_document(schedule) for schedule in found], shown, nothing=nothing, as_json=as_json)
    for schedule in found:
        if schedule.note and not as_json:
            say(f"{short(schedule.id)}: {plain(schedule.note)}")


@app.command("remove")
def remove(
    schedule: Annotated[str, typer.Argument(help="The schedule's id, or its first digits.")],
    as_json: Json = False,
) -> None:
    """Remove a schedule. A sync that it started continues."""
    with engine().begin() as connection:
        key = find_schedule(connection, schedule)
        schedules.remove(connection, key)
    emit({"id": key, "removed": True}) if as_json else say(f"Schedule {short(key)} removed.")


def _interval(given: str) -> timedelta:
    found = duration_of(given)
    if found is None:
        raise WrongUseError(f"--every {given!r} is no interval: write one like 30m, 6h or 1d.")
    return found


def _described(spec: ScheduleSpec) -> str:
    return f"{spec.cron} {spec.timezone}" if spec.every is None else f"every {shown_duration(spec.every)}"


def _options(schedule: Schedule) -> str:
    """The options that differ from their defaults."""
    defaults: Mapping[str, Any] = {"include_main": True}
    return ", ".join(
        name if value is True else f"{name} {value}"
        for name, value in schedule.options.items()
        if value != defaults.get(name, False)
    )


def _document(schedule: Schedule) -> dict[str, Any]:
    spec = schedule.spec
    return {
        **{name: value for name, value in vars(schedule).items() if name != "spec"},
        "every_s": spec.every.total_seconds() if spec.every else None,
        "cron": spec.cron,
        "timezone": spec.timezone,
    }
