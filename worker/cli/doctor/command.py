"""``provisioner doctor``: reports whether gateways can be provisioned, and what to do if not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.text import Text
from sqlalchemy import select

from models import Gateway
from worker.cli.console import Json, counted, emit, lines, marks, out, plain, say
from worker.cli.doctor.examination import compare_with_workers, examine
from worker.cli.doctor.fleet import forget_refusal, read_fleet, read_gateway
from worker.cli.doctor.report import Finding, Report
from worker.cli.doctor.servers import check_database, check_servers
from worker.cli.environment import engine, operator_settings
from worker.cli.errors import FAILED, WrongUseError
from worker.cli.lookup import find
from worker.gateway.rewrites import removal_rewrites
from worker.gateway.roster_reading import LiveRoster
from worker.roster.rewrite_permission import RewriteReview, review_rewrites


def doctor(
    gateway: Annotated[str | None, typer.Argument(help="Name or id of a gateway.")] = None,
    all_gateways: Annotated[
        bool, typer.Option("--all", help="Check every gateway in the database, one after another.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check a gateway and report what is right and wrong with it. Exits 1 if anything is wrong.

    Changes nothing on the gateway. Compares its roster with the agents' rows, renders every agent, asks
    BASE_URL whether Mission Control is there, and says what a config write would rewrite in the owner's
    files.
    """
    if (gateway is None) is not all_gateways:
        raise WrongUseError("Name one gateway, or give --all: `provisioner gateway list` shows all.")
    with engine().connect() as connection:
        if gateway is not None:
            keys = [find(connection, "gateway", gateway)]
        else:
            keys = list(connection.execute(select(Gateway.id).order_by(Gateway.name, Gateway.id)).scalars())
    servers = list(check_servers(operator_settings()))
    reports = [_examine(key, servers) for key in keys]
    if as_json:
        documents = [_document(report) for report in reports]
        emit(documents if all_gateways else documents[0])
    else:
        for report in reports:
            _show(report)
        if all_gateways:
            fit = sum(report.ok and not report.writes_refused for report in reports)
            say(f"Ready for provisioning: {fit} of {counted(len(reports), 'gateway')}.")
    if not all(report.ok for report in reports):
        raise typer.Exit(FAILED)


def _examine(key: UUID, servers: Sequence[Finding]) -> Report:
    with engine().connect() as connection:
        row = read_gateway(connection, key)
        fleet = read_fleet(connection, row.id)
        of_database = list(check_database(connection))

    def review(live: LiveRoster) -> RewriteReview:
        with engine().connect() as connection:
            return review_rewrites(connection, row.id, live, row.token, removal_rewrites(live, live.ours))

    report = examine(row, fleet, operator_settings(), review)
    report.extend([*of_database, *servers])
    forgotten = False
    if report.version is not None and row.refused_token_fingerprint is not None:
        with engine().begin() as connection:
            forgotten = forget_refusal(connection, row)
    compare_with_workers(report, row, refusal_forgotten=forgotten)
    return report


def _document(report: Report) -> dict[str, Any]:
    return {**asdict(report), "ok": report.ok}


def _show(report: Report) -> None:
    sign = marks(out)
    styles = {"ok": (sign.done, "green"), "warning": ("!", "yellow"), "fault": (sign.failed, "red")}
    say(Text.assemble((plain(report.gateway), "bold"), "  ", plain(report.url)))
    shown = lines()
    shown.add_column(no_wrap=True)
    shown.add_column(no_wrap=True)
    shown.add_column(overflow="fold")
    for finding in report.findings:
        mark, style = styles[finding.status]
        says = Text(plain(finding.says), style="" if finding.status == "ok" else style)
        shown.add_row(Text(mark, style=style), Text(finding.check, style="dim"), says)
    say(shown)
    say(_verdict(report))


def _verdict(report: Report) -> str:
    faults, warnings = (
        sum(finding.status == status for finding in report.findings) for status in ("fault", "warning")
    )
    warned = f"{warnings} warning{'s' * (warnings > 1)}" if warnings else ""
    if report.ok and report.writes_refused:
        return f"Config writes are refused until you allow them; {warned}."
    if report.ok:
        return f"Ready for provisioning{f', with {warned}' if warned else ''}."
    return f"{faults} fault{'s' * (faults > 1)} to correct{f', {warned}' if warned else ''}."
