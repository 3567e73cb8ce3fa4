"""The metrics of `provisioner metrics`, and the queries that measure them.

All are read from Postgres, so they are right whatever Redis, Flower or a worker has lost. Jobs that have
ended count for a day, so that no query costs more as the tables grow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import Connection, text

from worker.jobs.kinds import JOB_KINDS
from worker.jobs.states import JOB_STATUSES, ReasonCode, RolloutState
from worker.jobs.store.codes import crashes, reason_code
from worker.jobs.store.drift import OF_NO_ROLL_OUT
from worker.records.upkeep import Removed

_GATEWAY = ("gateway", "gateway_id")


@dataclass(frozen=True)
class Query:
    """One statement and the gauges that it measures. ``labels``: its columns that become labels; ``gauges``:
    the name and the help of the metric that each other column becomes. A null is no sample."""

    labels: tuple[str, ...]
    gauges: Mapping[str, tuple[str, str]]
    sql: str


def read_metrics(connection: Connection) -> Iterator[GaugeMetricFamily]:
    """Measure every metric now, over one connection. Raises SQLAlchemyError."""
    for query in QUERIES:
        rows = connection.execute(text(query.sql)).all()
        for column, (name, help_) in query.gauges.items():
            family = GaugeMetricFamily(name, help_, labels=query.labels)
            for row in rows:
                value = row._mapping[column]
                if value is not None:
                    family.add_metric([str(row._mapping[label]) for label in query.labels], float(value))
            yield family


def _each(values: tuple[str, ...], name: str) -> str:
    return f"unnest(ARRAY[{', '.join(repr(str(value)) for value in values)}]) AS {name}"


_JOBS = Query(
    ("kind", "status"),
    {"jobs": ("provisioner_jobs", "Jobs that are open now, or ended within the last 24 hours.")},
    f"""
    SELECT kind, status, coalesce(counted.jobs, 0) AS jobs
    FROM (SELECT kind, status FROM {_each(JOB_KINDS, "kind")}, {_each(JOB_STATUSES, "status")}) every
    LEFT JOIN (
        SELECT kind, status, count(*) AS jobs FROM provisioner.jobs
        WHERE status IN ('queued', 'running')
           OR created_at > now() - interval '7 days' AND finished_at > now() - interval '24 hours'
        GROUP BY kind, status
    ) counted USING (kind, status)
    """,
)

_QUEUE = Query(
    ("kind",),
    {
        "age": (
            "provisioner_queue_oldest_seconds",
            "Age of the oldest job that no worker has begun; 0 where none waits.",
        )
    },
    f"""
    SELECT kind, coalesce(extract(epoch FROM now() - min(created_at)), 0) AS age
    FROM {_each(JOB_KINDS, "kind")} LEFT JOIN (
        SELECT kind, created_at FROM provisioner.jobs
        WHERE status = 'queued' AND reason_code IS DISTINCT FROM '{ReasonCode.WAITING_FOR_WINDOW}'
    ) waiting USING (kind)
    GROUP BY kind
    """,
)

_DURATIONS = Query(
    ("kind", "quantile"),
    {
        "took": (
            "provisioner_job_duration_seconds",
            "From request to end, of jobs that ended within the last 24 hours; quantile 1 is the longest.",
        ),
        "waited": (
            "provisioner_job_wait_seconds",
            "From request to a worker's first look, of the same jobs.",
        ),
    },
    """
    SELECT kind, quantile,
        percentile_disc(quantile::float) WITHIN GROUP (
            ORDER BY extract(epoch FROM finished_at - created_at)) AS took,
        percentile_disc(quantile::float) WITHIN GROUP (
            ORDER BY extract(epoch FROM coalesce(started_at, finished_at) - created_at)) AS waited
    FROM provisioner.jobs, unnest(ARRAY['0.5', '0.95', '1']) AS quantile
    WHERE created_at > now() - interval '7 days' AND finished_at > now() - interval '24 hours'
    GROUP BY kind, quantile
    """,
)

_PARKED_FOR: Mapping[str, ReasonCode] = {
    "roster_writer": ReasonCode.WAITING_FOR_ROSTER,
    "other_job": ReasonCode.WAITING_FOR_AGENT,
    "other_agents": ReasonCode.WAITING_FOR_OTHER_AGENTS,
    "being_woken": ReasonCode.BEING_WOKEN,
    "gateway_restart": ReasonCode.WAITING_FOR_RESTART,
    "sync_window": ReasonCode.WAITING_FOR_WINDOW,
    "worker_stopping": ReasonCode.WORKER_STOPPING,
    "database": ReasonCode.WAITING_FOR_DATABASE,
}
"""What the label ``reason`` says of rows that wait for anything but their gateway's answer."""
_PARKED = Query(
    ("reason",),
    {"agents": ("provisioner_parked_agents", "Agents of open jobs that wait to be tried again, by reason.")},
    f"""
    SELECT reason, count(because) AS agents
    FROM {_each((*_PARKED_FOR, "gateway_down", "rate_limit", "gateway_error"), "reason")} LEFT JOIN (
        SELECT CASE
            {" ".join(f"WHEN code = '{code}' THEN '{label}'" for label, code in _PARKED_FOR.items())}
            WHEN down_since IS NOT NULL OR code = '{ReasonCode.WAITING_FOR_GATEWAY}' THEN 'gateway_down'
            WHEN code = '{ReasonCode.RATE_LIMITED}' THEN 'rate_limit'
            ELSE 'gateway_error' END AS because
        FROM (
            SELECT {reason_code("r")} AS code, s.down_since
            FROM provisioner.job_agents r
            JOIN provisioner.jobs j ON j.id = r.job_id
            LEFT JOIN agents a ON a.id = r.agent_id
            LEFT JOIN provisioner.gateway_states s ON s.gateway_id = coalesce(j.gateway_id, a.gateway_id)
            WHERE r.status IN ('pending', 'running') AND r.lease_until IS NULL AND r.published_at IS NULL
        ) waiting
        WHERE code IS NOT NULL
    ) parked ON because = reason
    GROUP BY reason
    """,
)

_CRASHES = Query(
    (),
    {
        "crashes": (
            "provisioner_lost_claims",
            "Claims whose worker died before it reported an outcome, of agents started in the last 24 hours.",
        )
    },
    f"""
    SELECT coalesce(sum({crashes("r")}), 0) AS crashes
    FROM provisioner.jobs j JOIN provisioner.job_agents r ON r.job_id = j.id
    WHERE j.created_at > now() - interval '7 days' AND r.started_at > now() - interval '24 hours'
    """,
)

_GATEWAYS = Query(
    _GATEWAY,
    {
        "down": (
            "provisioner_gateway_down_seconds",
            "How long the gateway has been away; 0 where it is up.",
        ),
        "limited": (
            "provisioner_gateway_rate_limited_seconds",
            "How long the gateway takes no config change yet; 0 of one that does.",
        ),
        "refused": ("provisioner_gateway_token_refused", "1 of a gateway that refused our token."),
        "intents": ("provisioner_roster_intents_open", "Changes of the roster that are not written yet."),
        "oldest": (
            "provisioner_roster_intent_oldest_seconds",
            "Age of the oldest of these changes; 0 where there is none.",
        ),
    },
    """
    SELECT g.name AS gateway, g.id AS gateway_id,
        coalesce(extract(epoch FROM now() - s.down_since), 0) AS down,
        coalesce(greatest(0, extract(epoch FROM s.rate_limited_until - now())), 0) AS limited,
        (s.refused_token_fingerprint IS NOT NULL)::int AS refused,
        coalesce(i.open, 0) AS intents, coalesce(extract(epoch FROM now() - i.oldest), 0) AS oldest
    FROM gateways g
    LEFT JOIN provisioner.gateway_states s ON s.gateway_id = g.id
    LEFT JOIN (
        SELECT gateway_id, count(*) AS open, min(created_at) AS oldest FROM provisioner.roster_intents
        WHERE applied_at IS NULL AND error IS NULL GROUP BY gateway_id
    ) i ON i.gateway_id = g.id
    """,
)

_DRIFT = Query(
    _GATEWAY,
    {
        "files": (
            "provisioner_drift_files",
            "Workspace files that differed from their templates at the newest sync, dry run or not.",
        ),
        "roster": ("provisioner_drift_roster_entries", "Entries of the roster that differed at that sync."),
        "unmended": ("provisioner_drift_unmended", "1 where that sync was a dry run and found drift."),
        "errors": (
            "provisioner_sync_errors",
            "Errors of the newest sync: agents that it failed on, skipped or did not attempt.",
        ),
        "age": (
            "provisioner_sync_age_seconds",
            "Time since the newest sync of the whole gateway ended, or a roll-out over it that reached all.",
        ),
    },
    f"""
    SELECT g.name AS gateway, g.id AS gateway_id, did.files, did.roster, did.errors,
        (last.dry_run AND did.files + did.roster > 0)::int AS unmended,
        extract(epoch FROM now() - last.finished_at) AS age
    FROM gateways g CROSS JOIN LATERAL (
        SELECT * FROM (
            (SELECT j.id, j.kind, j.created_at, j.finished_at,
                coalesce((j.result->>'dry_run')::boolean, false) AS dry_run
            FROM provisioner.jobs j
            WHERE j.gateway_id = g.id AND j.kind = 'sync_gateway' AND j.board_id IS NULL
              AND j.finished_at IS NOT NULL AND j.result ?& ARRAY['files_written', 'roster_changes', 'errors']
              AND {OF_NO_ROLL_OUT}
            ORDER BY j.created_at DESC LIMIT 1)
            UNION ALL
            (SELECT j.id, j.kind, j.created_at, j.finished_at, false
            FROM provisioner.roll_outs o JOIN provisioner.jobs j ON j.id = o.job_id
            WHERE o.gateways @> ARRAY[g.id] AND j.board_id IS NULL AND j.status IN ('succeeded', 'partial')
              AND (j.result->>'dry_run')::boolean IS NOT TRUE
            ORDER BY j.created_at DESC LIMIT 1)
        ) newest ORDER BY finished_at DESC LIMIT 1
    ) last CROSS JOIN LATERAL (
        SELECT coalesce(sum((j.result->>'files_written')::int), 0) AS files,
            coalesce(sum((j.result->>'roster_changes')::int), 0) AS roster,
            CASE last.kind WHEN 'roll_out' THEN (
                SELECT count(*) FROM provisioner.roll_out_agents a
                WHERE a.job_id = last.id AND a.gateway_id = g.id AND a.state IN ('failed', 'unknown'))
            ELSE sum(jsonb_array_length(j.result->'errors')) END AS errors
        FROM provisioner.jobs j
        WHERE j.gateway_id = g.id AND j.created_at >= last.created_at AND j.kind = 'sync_gateway'
          AND (j.id = last.id OR last.kind = 'roll_out' AND j.parent_job_id = last.id
            AND (j.result->>'dry_run')::boolean IS NOT TRUE)
    ) did
    """,
)

_DRIFTED = Query(
    _GATEWAY,
    {
        "agents": ("provisioner_drifted_agents", "Agents that differ, as far as dry runs have found."),
        "oldest": (
            "provisioner_drift_oldest_seconds",
            "How long the first of them has been known to differ; 0 where none does.",
        ),
    },
    """
    SELECT g.name AS gateway, g.id AS gateway_id, count(a.id) AS agents,
        coalesce(extract(epoch FROM now() - min(d.since) FILTER (WHERE a.id IS NOT NULL)), 0) AS oldest
    FROM gateways g
    LEFT JOIN provisioner.agent_drift d ON d.gateway_id = g.id
    LEFT JOIN agents a ON a.id = d.agent_id AND a.gateway_id = d.gateway_id
    GROUP BY g.id, g.name
    """,
)

_SCHEDULES = Query(
    (),
    {
        "overdue": (
            "provisioner_schedule_overdue_seconds",
            "How long the most overdue schedule has been due; 0 where none is. It grows where no beat runs.",
        )
    },
    """
    SELECT coalesce(max(greatest(0, extract(epoch FROM now() - next_run_at))), 0) AS overdue
    FROM provisioner.sync_schedules WHERE enabled
    """,
)

_WORKERS = Query(
    ("worker",),
    {
        "seen": (
            "provisioner_worker_seen_seconds",
            "Time since the worker last wrote to the database. It grows where the database takes no writes.",
        ),
        "pauses": (
            "provisioner_worker_pauses",
            "How often the worker took no work because the database did not serve it.",
        ),
        "paused": ("provisioner_worker_paused_seconds", "How long these pauses were, all together."),
        "dropped": (
            "provisioner_worker_messages_dropped",
            "Messages in our queues that the worker could not read.",
        ),
        "moved": (
            "provisioner_worker_messages_moved",
            "Messages for us that the worker found in Celery's default queue.",
        ),
    },
    """
    SELECT name AS worker, extract(epoch FROM now() - seen_at) AS seen, pauses, paused_s AS paused,
        messages_dropped AS dropped, messages_moved AS moved
    FROM provisioner.workers
    """,
)

_WEBHOOKS = Query(
    ("webhook", "webhook_id"),
    {
        "failures": (
            "provisioner_webhook_failures",
            "How often in a row the webhook did not accept a message; 0 of one that answers.",
        ),
        "waiting": ("provisioner_webhook_waiting", "Jobs that have ended, of which it is not told yet."),
        "oldest": (
            "provisioner_webhook_oldest_seconds",
            "Time since the first of these ended; 0 without any. It grows where no worker has WEBHOOK_KEY.",
        ),
        "given_up": (
            "provisioner_webhook_given_up",
            "Jobs of which it will not be told, given up within the last 24 hours.",
        ),
    },
    """
    SELECT w.name AS webhook, w.id AS webhook_id, w.failures, count(j.id) AS waiting,
        coalesce(extract(epoch FROM now() - min(j.finished_at)), 0) AS oldest,
        count(*) FILTER (WHERE d.status = 'failed') AS given_up
    FROM provisioner.webhooks w
    LEFT JOIN provisioner.webhook_deliveries d ON d.webhook_id = w.id
        AND (d.status = 'pending' OR d.status = 'failed' AND d.finished_at > now() - interval '24 hours')
    LEFT JOIN provisioner.jobs j ON j.id = d.job_id AND d.status = 'pending' AND j.finished_at IS NOT NULL
    GROUP BY w.id
    """,
)

_TEXTS = Query(
    _GATEWAY,
    {
        "kept": (
            "provisioner_kept_text_bytes",
            "Compressed size of the delivered texts that are kept of a gateway's files, at most 64 MiB.",
        )
    },
    """
    SELECT coalesce(g.name, t.gateway_id::text) AS gateway, t.gateway_id, sum(length(t.body)) AS kept
    FROM provisioner.file_texts t LEFT JOIN gateways g ON g.id = t.gateway_id
    GROUP BY t.gateway_id, g.name
    """,
)

_BUNDLES = Query(
    _GATEWAY,
    {
        "bundles": ("provisioner_bundles", "Bundles that are kept of the gateway's agents."),
        "size": ("provisioner_bundle_bytes", "What these bundles take in the database."),
    },
    """
    SELECT coalesce(g.name, b.gateway_id::text, '') AS gateway,
        coalesce(b.gateway_id::text, '') AS gateway_id, count(*) AS bundles,
        sum(length(b.body)) AS size
    FROM provisioner.agent_bundles b LEFT JOIN gateways g ON g.id = b.gateway_id
    GROUP BY b.gateway_id, g.name
    """,
)

_ROLL_OUTS = Query(
    (),
    {
        "open": ("provisioner_roll_outs_open", "Roll-outs that have not ended."),
        "paused": ("provisioner_roll_outs_paused", "Those of them that wait for somebody to resume them."),
    },
    """
    SELECT count(*) AS open, count(o.paused_at) AS paused
    FROM provisioner.roll_outs o JOIN provisioner.jobs j ON j.id = o.job_id
    WHERE j.status IN ('queued', 'running')
    """,
)

_ROLL_OUT_AGENTS = Query(
    ("state",),
    {"agents": ("provisioner_roll_out_agents", "Agents of roll-outs that have not ended, by their state.")},
    f"""
    SELECT state, count(a.agent_id) AS agents FROM {_each(tuple(RolloutState), "state")} LEFT JOIN (
        SELECT r.state, r.agent_id FROM provisioner.roll_out_agents r
        JOIN provisioner.jobs j ON j.id = r.job_id WHERE j.status IN ('queued', 'running')
    ) a USING (state)
    GROUP BY state
    """,
)

_PRUNED = Query(
    ("what",),
    {
        "rows": (
            "provisioner_pruned_rows",
            "Rows that workers have deleted because they were old, since the first time.",
        )
    },
    f"""
    SELECT what, coalesce((u.removed->>what)::bigint, 0) AS rows
    FROM {_each(tuple(each.name for each in fields(Removed)), "what")}
    LEFT JOIN provisioner.upkeep u ON u.name = 'prune'
    """,
)
_PRUNES = Query(
    (),
    {"age": ("provisioner_prune_age_seconds", "Time since a worker last deleted what is old.")},
    """
    SELECT extract(epoch FROM now() - max(last_run_at)) AS age FROM provisioner.upkeep WHERE name = 'prune'
    """,
)

QUERIES = (
    _JOBS,
    _QUEUE,
    _DURATIONS,
    _PARKED,
    _CRASHES,
    _GATEWAYS,
    _DRIFT,
    _DRIFTED,
    _SCHEDULES,
    _WORKERS,
    _WEBHOOKS,
    _TEXTS,
    _BUNDLES,
    _ROLL_OUTS,
    _ROLL_OUT_AGENTS,
    _PRUNED,
    _PRUNES,
)
