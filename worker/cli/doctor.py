"""``provisioner doctor``: is a gateway fit to be provisioned, and if not, what is to be done?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.text import Text

from worker.cli.checkup import Checkup, compare_with_workers, examine, forget_refusal, read_gateway
from worker.cli.environment import engine, operator_settings
from worker.cli.faults import FAILED
from worker.cli.lookup import find
from worker.cli.screen import Json, emit, lines, marks, out, plain, say


def doctor(
    gateway: Annotated[str, typer.Argument(help="Name or id of a gateway.")], as_json: Json = False
) -> None:
    """Connect to a gateway and say what is right and wrong with it. Exit code 1 where something is wrong."""
    with engine().connect() as connection:
        row = read_gateway(connection, find(connection, "gateway", gateway))
    found = examine(row, operator_settings().gateway_device_key)
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
    faults = sum(finding.status == "fault" for finding in found.findings)
    say("Fit to be provisioned." if found.ok else f"{faults} fault{'s' * (faults > 1)} to put right.")
