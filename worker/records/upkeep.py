"""Deletes what is old from all of our tables, step by step: by `provisioner prune`, and once an hour by a
worker."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from datetime import timedelta

from sqlalchemy import Connection, Engine, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from worker.jobs.store import pruning
from worker.records import agent_settings, template_layers
from worker.records.bundles import forget_bundles
from worker.records.file_changes import forget_changes
from worker.records.file_texts import forget_texts
from worker.rights import PRUNING, missing_rights, sentence
from worker.shutdown_flag import shutting_down

log = logging.getLogger(__name__)

EVERY = timedelta(hours=1)
"""From one run to the next."""
LONGEST_S = 15.0
"""After so many seconds a run begins no further step; what is left goes on a few seconds later."""
BATCH = 2000
"""How many rows one step deletes from a table at most."""


@dataclass(frozen=True)
class Removed:
    """How many rows were deleted, or in a dry run would be: jobs, their agents' rows and roster intents;
    settings and templates of what is gone; notes of what jobs replaced; texts of files; and bundles."""

    jobs: int = 0
    agents: int = 0
    intents: int = 0
    settings: int = 0
    changes: int = 0
    texts: int = 0
    templates: int = 0
    bundles: int = 0

    def __add__(self, other: Removed) -> Removed:
        return Removed(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def remove(engine: Engine, older_than: timedelta) -> Iterator[Removed]:
    """Delete what is older than that, and yield what each step, a short transaction of its own, has deleted.

    Bundles have a time of their own.
    """
    for batch in pruning.prune(engine, older_than):
        yield Removed(**asdict(batch))
    with engine.begin() as connection:
        settings = agent_settings.forget_orphans(connection, older_than)
        templates = template_layers.forget_orphans(connection, older_than)
    yield Removed(settings=settings, templates=templates)
    for count in _repeated(engine, lambda c: forget_changes(c, older_than, most=BATCH)):
        yield Removed(changes=count)
    for count in _repeated(engine, lambda c: forget_texts(c, older_than, most=BATCH)):
        yield Removed(texts=count)
    with engine.begin() as connection:
        bundles = forget_bundles(connection)
    yield Removed(bundles=bundles)


def count(engine: Engine, older_than: timedelta) -> Removed:
    """What `remove` would delete now; of texts, those that are spare already."""
    jobs = sum(
        (Removed(**asdict(batch)) for batch in pruning.prune(engine, older_than, dry_run=True)), Removed()
    )
    with engine.begin() as connection:
        return jobs + Removed(
            settings=agent_settings.forget_orphans(connection, older_than, dry_run=True),
            changes=forget_changes(connection, older_than, dry_run=True),
            texts=forget_texts(connection, older_than, dry_run=True),
            templates=template_layers.forget_orphans(connection, older_than, dry_run=True),
            bundles=forget_bundles(connection, dry_run=True),
        )


def _repeated(engine: Engine, step: Callable[[Connection], int]) -> Iterator[int]:
    while True:
        with engine.begin() as connection:
            removed = step(connection)
        if not removed:
            return
        yield removed


def remove_if_due(engine: Engine, older_than: timedelta) -> Removed | None:
    """Delete what is old if the last run began longer ago than `EVERY`, or came to no end; None if not.

    Of several workers that ask, one does it. If the role lacks a right that this needs, nothing is deleted,
    and the log says which. Raises database errors.
    """
    with engine.begin() as connection:
        if connection.execute(_CLAIM, {"every": EVERY}).one_or_none() is None:
            return None
        lacks = missing_rights(connection, PRUNING)
        if lacks:
            log.warning("nothing old is deleted: %s", sentence(connection, lacks))
            return None
    removed, until = Removed(), time.monotonic() + LONGEST_S
    steps = remove(engine, older_than)
    ended = True
    for step in steps:
        removed += step
        if time.monotonic() > until or shutting_down.is_set():
            ended = False
            break
    counts = asdict(removed)
    with engine.begin() as connection:
        connection.execute(_NOTE, {"counts": counts, "ended": ended})
    if any(counts.values()):
        named = ", ".join(f"{value} {name}" for name, value in counts.items() if value)
        log.info("deleted what is older than %g days: %s", older_than / timedelta(days=1), named)
    return removed


_CLAIM = text("""
    INSERT INTO provisioner.upkeep AS u (name, next_run_at)
    VALUES ('prune', now() + CAST(:every AS interval))
    ON CONFLICT (name) DO UPDATE SET next_run_at = excluded.next_run_at WHERE u.next_run_at <= now()
    RETURNING name
""")
_NOTE = text("""
    UPDATE provisioner.upkeep SET
        last_run_at = now(),
        next_run_at = CASE WHEN :ended THEN next_run_at ELSE now() END,
        removed = (
            SELECT jsonb_object_agg(
                c.key, CAST(c.value AS bigint) + coalesce(CAST(removed->>c.key AS bigint), 0))
            FROM jsonb_each_text(:counts) AS c)
    WHERE name = 'prune'
""").bindparams(bindparam("counts", type_=JSONB))
