"""``provisioner migrate`` and ``provisioner prune``: the upkeep of our tables."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer

from worker.cli.console import Json, counted, emit, say
from worker.cli.environment import engine
from worker.cli.errors import WrongUseError
from worker.jobs.store import pruning
from worker.jobs.store.pruning import Pruned
from worker.records import template_layers
from worker.records.agent_settings import forget_orphans
from worker.records.bundles import forget_bundles
from worker.records.file_changes import forget_changes
from worker.records.file_texts import forget_texts

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


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
    total = sum(pruning.prune(engine(), age, dry_run=dry_run), Pruned())
    with engine().begin() as connection:
        settings = forget_orphans(connection, age, dry_run=dry_run)
        changes = forget_changes(connection, age, dry_run=dry_run)
        texts = forget_texts(connection, age, dry_run=dry_run)
        old = forget_bundles(connection, dry_run=dry_run)
        templates = template_layers.forget_orphans(connection, age, dry_run=dry_run)
    if as_json:
        emit(
            {
                "older_than_s": age.total_seconds(),
                "dry_run": dry_run,
                **asdict(total),
                "settings": settings,
                "changes": changes,
                "texts": texts,
                "templates": templates,
                "bundles": old,
            }
        )
        return
    if settings:
        done = "would be deleted" if dry_run else "deleted"
        say(f"{counted(settings, 'setting')} of agents, boards and gateways that are gone {done}.")
    if changes:
        done = "would be deleted" if dry_run else "deleted"
        say(f"{counted(changes, 'record')} of what jobs replaced in workspace files {done}.")
    if texts:
        done = "would be deleted" if dry_run else "deleted"
        say(f"{counted(texts, 'text')} that no workspace file was last written from {done}.")
    if templates:
        done = "would be deleted" if dry_run else "deleted"
        say(f"{counted(templates, 'version')} of templates of agents, boards and wider that are gone {done}.")
    if old:
        done = "would be deleted" if dry_run else "deleted"
        say(f"{counted(old, 'bundle')} of agents whose time is over {done}.")
    if not total.jobs:
        say(f"Nothing to delete: no job ended more than {older_than} ago, or only the newest of an agent.")
        return
    verb = "would be deleted" if dry_run else "deleted"
    beside = f"{total.agents} agents' rows and {total.intents} roster intents"
    say(f"{total.jobs} jobs that ended more than {older_than} ago {verb}, with {beside}.")


def age_of(given: str) -> timedelta:
    """Parse a duration such as ``30d``, ``12h`` or ``6w``. Raises WrongUseError."""
    found = re.fullmatch(r"(\d{1,5})\s*([hdw])", given.strip().lower())
    if found is None:
        raise WrongUseError(f"--older-than is a number with h, d or w, as in 30d, not {given!r}.")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})
