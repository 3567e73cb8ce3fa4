"""Parts of the statements that end agents' rows: they also record which agents differ (rules.md 54)."""

from __future__ import annotations

NOTE_DRIFT = """ON CONFLICT (agent_id) DO UPDATE SET seen_at = now(), job_id = excluded.job_id,
            since = CASE WHEN d.gateway_id = excluded.gateway_id THEN d.since ELSE now() END,
            gateway_id = excluded.gateway_id, differs = excluded.differs"""
"""SQL: the end of an INSERT into ``provisioner.agent_drift d``. The time of the first finding stays."""
OF_NO_ROLL_OUT = """NOT EXISTS (
            SELECT FROM provisioner.jobs p WHERE p.id = j.parent_job_id AND p.kind = 'roll_out')"""
"""SQL: whether the job ``j`` is none of a roll-out's, which looks at what it is about to change."""
