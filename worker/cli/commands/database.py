"""``provisioner migrate`` and ``provisioner prune``: the upkeep of our tables."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from worker.ages import age_of
from worker.cli.console import Json, counted, emit, say
from worker.cli.environment import engine
from worker.cli.errors import WrongUseError
from worker.records.upkeep import Removed, count, remove


def migrate(
    standalone: Annotated[
        bool,
        typer.Option(
            "--standalone", help="Also create Mission Control's tables, for use without Mission Control."
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


def prune(
    older_than: Annotated[
        str, typer.Option(metavar="AGE", help="Minimum time since they ended: 30d, 12h, 6w.")
    ] = "30d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count them, and delete nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Delete jobs that ended long ago. Keeps open jobs, and the newest job of each agent."""
    age = age_of(older_than)
    if age is None:
        raise WrongUseError(f"--older-than is a number with h, d or w, as in 30d, not {older_than!r}.")
    total = count(engine(), age) if dry_run else sum(remove(engine(), age), Removed())
    if as_json:
        emit({"older_than_s": age.total_seconds(), "dry_run": dry_run, **asdict(total)})
        return
    if total.settings:
        done = "would be deleted" if dry_run else "deleted"
        say(f"{counted(total.settings, 'setting')} of agents, boards and gateways that are gone {done}.")
    if total.changes:
        done = "would be deleted" if dry_run else "deleted"
        say(f"{counted(total.changes, 'record')} of what jobs replaced in workspace files {done}.")
    if total.texts:
        done = "would be deleted" if dry_run else "deleted"
        say(f"{counted(total.texts, 'text')} that no workspace file was last written from {done}.")
    if total.templates:
        done = "would be deleted" if dry_run else "deleted"
        versions = counted(total.templates, "version")
        say(f"{versions} of templates of agents, boards and wider that are gone {done}.")
    if total.bundles:
        done = "would be deleted" if dry_run else "deleted"
        say(f"{counted(total.bundles, 'bundle')} of agents whose time is over {done}.")
    if not total.jobs:
        say(f"Nothing to delete: no job ended more than {older_than} ago, or only the newest of an agent.")
        return
    verb = "would be deleted" if dry_run else "deleted"
    beside = f"{total.agents} agents' rows and {total.intents} roster intents"
    say(f"{total.jobs} jobs that ended more than {older_than} ago {verb}, with {beside}.")
