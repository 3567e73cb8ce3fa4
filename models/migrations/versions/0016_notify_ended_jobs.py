"""Triggers that send NOTIFY provisioner_jobs when jobs end (decisions.md D17).

A job that ends gets finished_at = now(), the time of its transaction, so the rows with that time are those that this
transaction has ended. Statement triggers see them together: a batch is one notification, or one per 100 jobs, since a
payload must be shorter than 8000 bytes.
"""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE FUNCTION provisioner.notify_ended_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_notify('provisioner_jobs', json_agg(json_build_object('id', id, 'status', status))::text)
            FROM (
                SELECT id, status, (row_number() OVER () - 1) / 100 AS part FROM written WHERE finished_at = now()
            ) ended
            GROUP BY part;
            RETURN NULL;
        END
        $$
    """)
    for event in ("INSERT", "UPDATE"):
        op.execute(f"""
            CREATE TRIGGER jobs_notify_{event.lower()} AFTER {event} ON provisioner.jobs
            REFERENCING NEW TABLE AS written
            FOR EACH STATEMENT EXECUTE FUNCTION provisioner.notify_ended_jobs()
        """)


def downgrade() -> None:
    for event in ("INSERT", "UPDATE"):
        op.execute(f"DROP TRIGGER jobs_notify_{event.lower()} ON provisioner.jobs")
    op.execute("DROP FUNCTION provisioner.notify_ended_jobs()")
