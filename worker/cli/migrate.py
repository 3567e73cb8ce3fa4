"""``provisioner migrate``."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.cli.console import Json, emit, say
from worker.cli.environment import engine


def migrate(
    standalone: Annotated[
        bool,
        typer.Option(
            "--standalone", help="Also make Mission Control's tables, where there is no Mission Control."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Bring the schema `provisioner` up to date. Mission Control's own tables stay as they are."""
    from models.migrate import migrate as bring_up_to_date

    before, after = bring_up_to_date(engine(), standalone=standalone)
    if as_json:
        emit({"before": before, "after": after, "changed": before != after})
    elif before == after:
        say(f"Up to date: revision {after}.")
    else:
        say(f"Migrated from {before or 'nothing'} to revision {after}.")
