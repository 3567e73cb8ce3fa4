"""``provisioner doctor``: is a gateway fit to be provisioned, and if not, what is to be done?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.text import Text

from worker.cli.check_rights import check_database
from worker.cli.checkup import compare_with_workers, examine
from worker.cli.environment import engine, operator_settings
from worker.cli.faults import FAILED
from worker.cli.findings import Checkup
from worker.cli.gateway_rows import forget_refusal, read_fleet, read_gateway
from worker.cli.lookup import find
from worker.cli.screen import Json, emit, lines, marks, out, plain, say


def doctor(
    gateway: Annotated[str, typer.Argument(help="Name or id of a gateway.")], as_json: Json = False
) -> None:
    """Look at a gateway and say what is right and wrong with it. Exit code 1 where something is wrong.

    Changes nothing on the gateway. Compares its roster with the agents' rows, renders every agent, and asks
    BASE_URL whether Mission Control is there.
    """
    with engine().connect() as connection:
        row = read_gateway(connection, find(connection, "gateway", gateway))
        fleet = read_fleet(connection, row.id)
        of_database = list(check_database(connection))
    found = examine(row, fleet, operator_settings())
    found.extend(of_database)
    forgotten = False
    if found.version is not None and row.refused_token_fingerprint is not None:
        with engine().begin() as connection:
            forgotten = forget_refusal(connection, row)
    compare_with_workers(found, row, refusal_forgotten=forgotten)
    emit(_document(found)) if as_json else _show(found)
    if not found.ok:
        raise typer.Exit(FAILED)


def _document(found: Checkup) -> dict[str, Any]:
    return {**asdict(found), "ok": found.ok}


def _show(found: Checkup) -> None:
    sign = marks(out)
    looks = {"ok": (sign.done, "green"), "warning": ("!", "yellow"), "fault": (sign.failed, "red")}
    say(Text.assemble((plain(found.gateway), "bold"), "  ", plain(found.url)))
    shown = lines()
    shown.add_column(no_wrap=True)
    shown.add_column(no_wrap=True)
    shown.add_column(overflow="fold")
    for finding in found.findings:
        mark, style = looks[finding.status]
        says = Text(plain(finding.says), style="" if finding.status == "ok" else style)
        shown.add_row(Text(mark, style=style), Text(finding.check, style="dim"), says)
    say(shown)
    say(_verdict(found))


def _verdict(found: Checkup) -> str:
    faults, warnings = (
        sum(finding.status == status for finding in found.findings) for status in ("fault", "warning")
    )
    heed = f"{warnings} warning{'s' * (warnings > 1)}" if warnings else ""
    if found.ok:
        return f"Fit to be provisioned{f', with {heed} to heed' if heed else ''}."
    return f"{faults} fault{'s' * (faults > 1)} to put right{f', {heed} to heed' if heed else ''}."
