"""Whether the database lets the workers do their work, as far as this command's role shows."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, text

from worker import rights
from worker.cli.findings import Finding, counted
from worker.errors import PermanentError

_WRITES = text(
    "SELECT current_setting('transaction_read_only') = 'off' AS writes, pg_is_in_recovery() AS standby"
)
_PAUSED = text("""
    SELECT name, last_pause, extract(epoch FROM now() - last_pause_at)::float AS ago_s
    FROM provisioner.workers WHERE last_pause_at > now() - interval '1 hour' ORDER BY last_pause_at DESC
""")


def check_database(connection: Connection) -> Iterator[Finding]:
    """What DATABASE_URL's role may do, whether the database takes writes, and which workers had to wait."""
    row = connection.execute(_WRITES).one()
    if not row.writes:
        what = "is a standby" if row.standby else "is read-only (default_transaction_read_only)"
        yield Finding("database", "fault", f"it {what}: workers take no work until it takes writes")
    lacks = rights.lacking(connection, rights.WORKER)
    if lacks:
        said = f"workers of this role wait: {rights.sentence(connection, lacks)}"
        yield Finding("rights", "fault", said, [lack.table for lack in lacks])
        return
    for kind in rights.VERBS:
        try:
            rights.require_for(connection, kind)
        except PermanentError as error:
            yield Finding("rights", "warning", str(error))
    for paused in connection.execute(_PAUSED):
        ago = counted(round(paused.ago_s / 60), "minute")
        said = f"worker {paused.name} waited for it {ago} ago: {paused.last_pause}"
        yield Finding("database", "warning", said)
