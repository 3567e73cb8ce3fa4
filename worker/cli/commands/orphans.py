"""``provisioner orphans``: what is without its other half on a gateway, and what of it can be removed."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated
from uuid import UUID

import typer

from worker.cli.console import Json, emit, err, named, note, out, plain, say, table
from worker.cli.doctor.examination import CALL_S, CONNECT_S, live_roster
from worker.cli.doctor.fleet import Fleet, GatewayRow, read_fleet, read_gateway
from worker.cli.doctor.orphans import Look, Made, look, made_here, refusal
from worker.cli.environment import engine, operator_settings
from worker.cli.errors import FAILED, WrongUseError
from worker.cli.job_summary import JobSummary, document
from worker.cli.lookup import find
from worker.cli.options import REQUESTED_BY
from worker.cli.submit import present, watch
from worker.gateway.connection import GatewayConnection
from worker.gateway.device import DeviceKey
from worker.jobs.requests import DeleteAgent
from worker.jobs.store.jobs import enqueue
from worker.rights import require_all_rows


def orphans(
    gateway: Annotated[str, typer.Argument(help="Name or id of a gateway.")],
    remove: Annotated[
        list[str] | None,
        typer.Option(
            "--remove",
            metavar="OPENCLAW_ID",
            help="Remove this entry that has no row, after a bundle of it; may be repeated.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask on a terminal.")] = False,
    as_json: Json = False,
) -> None:
    """List what is without its other half on a gateway, each with its cure.

    That is: entries without a row, rows without an entry, agents that live elsewhere by now, and sessions of
    agents that are gone.

    Removes only what --remove names, and only ids that this deployment has made.
    """
    with engine().connect() as connection:
        row = read_gateway(connection, find(connection, "gateway", gateway))
        require_all_rows(connection, "agents")
        fleet, made = read_fleet(connection, row.id), made_here(connection, row.id)
    found = _look(row, fleet, made)
    wanted = list(dict.fromkeys(remove or ()))
    jobs: list[JobSummary] = []
    if wanted:
        why = refusal(found, wanted, row.name)
        if why is not None:
            raise WrongUseError(why)
        _confirm(row, wanted, yes=yes)
        jobs = _remove(found, wanted, row.id, as_json=as_json)
    if as_json:
        emit({**asdict(found), "removed": [document(job) for job in jobs]})
    elif not wanted:
        _show(found, row.name)
    else:
        for job in jobs:
            present(job)
    if any(job.status != "succeeded" for job in jobs):
        raise typer.Exit(FAILED)


def _look(row: GatewayRow, fleet: Fleet, made: dict[str, Made]) -> Look:
    settings = operator_settings()
    device = DeviceKey.load_or_create(settings.gateway_device_key)
    with GatewayConnection.open(row.address, device, deadline_s=CONNECT_S) as connection:
        live = live_roster(connection)
        return look(connection, live, fleet, made, row.name, settings.base_url, CALL_S)


def _confirm(row: GatewayRow, wanted: list[str], *, yes: bool) -> None:
    question = plain(f"Remove {named(wanted)} from gateway {row.name!r}, with files, after a bundle of each?")
    if not yes and sys.stdin.isatty() and not typer.confirm(question, err=True):
        note("Nothing was done.")
        raise typer.Exit(FAILED)


def _remove(found: Look, wanted: list[str], gateway_id: UUID, *, as_json: bool) -> list[JobSummary]:
    """Delete what is left of these agents. A row that somebody makes of one meanwhile stays, and so does its
    entry. All are asked for at once, so that the roster writer takes them together."""
    with engine().begin() as connection:
        jobs = [enqueue(connection, _request(found, key, gateway_id)) for key in wanted]
    return watch(engine(), [job.job_id for job in jobs], err if as_json else out)


def _request(found: Look, key: str, gateway_id: UUID) -> DeleteAgent:
    orphan = found.of(key)
    assert orphan is not None
    assert orphan.agent_id is not None
    return DeleteAgent(
        agent_id=orphan.agent_id,
        gateway_id=gateway_id,
        delete_row=False,
        only_orphan=True,
        requested_by=REQUESTED_BY,
    )


def _show(found: Look, gateway: str) -> None:
    shown = table("Id", "Kind", last="What to do", folds=True)
    for one in found.orphans:
        shown.add_row(plain(one.id), one.kind, plain(one.says))
    say(shown if found.orphans else f"Nothing on gateway {plain(gateway)} is without its other half.")
    for why in found.older:
        say("", f"This database may be older than the gateway, so nothing can be removed: {plain(why)}.")
    for remark in found.notes:
        note(remark)
