"""The oracle: what must be so when everything that was broken is whole again, whatever happened in between.

The state that an undisturbed run leaves is the measure. It is compared in a normal form, in which random ids
and tokens are replaced by names, because two runs have other ones.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from worker.lab.simulator import Simulator
from worker.roster.lease import LONGEST_LEASE_S
from worker.workspace.tokens import find_token, verify_token

_GOES_BY_ITSELF = "BOOTSTRAP.md"
"""Some releases delete it before an agent's first run, whenever that is."""

State = Mapping[str, Any]


def state_of(engine: Engine, simulators: Mapping[UUID, Simulator]) -> State:
    """What agents, rosters, files and tokens are, in the normal form. ``simulators``: by gateway id;
    agents of other gateways do not count."""
    with engine.connect() as connection:
        names = _names(connection, simulators)
        agents = {
            f"{row.name} at {row.gateway}": _agent(row, simulators, names)
            for row in connection.execute(_AGENTS)
            if row.gateway_id in simulators
        }
    rosters = {
        names.of(str(gateway_id)): {
            names.of(key): names.of_all(entry) for key, entry in each.agents().items()
        }
        for gateway_id, each in simulators.items()
    }
    return {"agents": agents, "rosters": rosters}


def differences(expected: State, found: State) -> list[str]:
    """What differs between two states, as sentences."""
    return list(_differences("", expected, found))


def left_open(engine: Engine) -> list[str]:
    """What a run that is over must not leave in Postgres: open jobs and rows, leases, intents, marks.

    The lease of a roster writer that could not give it back runs out by itself.
    """
    limits = {"longest_s": LONGEST_LEASE_S}
    with engine.connect() as connection:
        return [f"{row.found} {row.what}" for row in connection.execute(_OPEN, limits) if row.found]


def untrue_results(engine: Engine) -> list[str]:
    """Jobs whose result is not what their rows say, or that failed without a sentence and a code."""
    with engine.connect() as connection:
        return [f"job {row.id} ({row.kind}, {row.status}): {row.what}" for row in connection.execute(_UNTRUE)]


def woken_twice(simulators: Iterable[Simulator]) -> list[str]:
    """Sessions that got one wake message twice. A release that shows keys drops a repeated one by itself, so
    there only a second key for one job counts."""
    found = []
    for simulator in simulators:
        sent = Counter(
            (call.names.get("sessionKey"), call.names.get("idempotencyKey"))
            for call in simulator.calls
            if call.method == "chat.send" and call.ok
        )
        if simulator.release.roster_is_map:
            continue
        found += [f"{session} was sent {key} {n} times" for (session, key), n in sent.items() if n > 1]
    return found


class _Names:
    """Names for random ids, wherever they stand in a text."""

    def __init__(self, replacements: Mapping[str, str]) -> None:
        self._replacements = replacements

    def of(self, said: str) -> str:
        for found, name in self._replacements.items():
            said = said.replace(found, name)
        return said

    def of_all(self, value: Any) -> Any:
        return json.loads(self.of(json.dumps(value)))


def _names(connection: Connection, simulators: Mapping[UUID, Simulator]) -> _Names:
    replacements = {
        f"{each.state_dir}/home": "~" for each in simulators.values()
    }  # as at each write of a config
    replacements |= {str(each.state_dir): "STATE" for each in simulators.values()}
    replacements |= {row.id: f"<{row.what} {row.name}>" for row in connection.execute(_IDS)}
    return _Names(replacements)


def _agent(row: Any, simulators: Mapping[UUID, Simulator], names: _Names) -> dict[str, Any]:
    simulator = simulators[row.gateway_id]
    texts = dict(_texts(simulator, row.openclaw_id)) if row.openclaw_id else {}
    carrier = "AGENTS.md" if simulator.release.roster_is_map else "TOOLS.md"
    token = find_token(texts.get(carrier, ""), section=carrier == "AGENTS.md")
    verified = token is not None and verify_token(token, row.agent_token_hash)
    texts = {name: said.replace(token, "TOKEN") if token else said for name, said in texts.items()}
    return {
        "status": row.status,
        "session": names.of(row.openclaw_session_id or ""),
        "place": names.of(row.openclaw_id or ""),
        "token is the row's": verified,
        "pending": row.pending_hash is not None,
        "heartbeat": row.heartbeat_config,
        "files": {name: names.of(said) for name, said in texts.items()},
    }


def _texts(simulator: Simulator, openclaw_id: str) -> Iterator[tuple[str, str]]:
    try:
        folder = simulator.workspace(openclaw_id)
    except KeyError:  # it is not in the roster, which the rosters show
        return
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name != _GOES_BY_ITSELF:
            yield path.name, path.read_text(errors="replace")


def _differences(where: str, expected: Any, found: Any) -> Iterator[str]:
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key in sorted({*expected, *found}, key=str):
            here = f"{where}/{key}"
            if key not in found:
                yield f"{here} is lost"
            elif key not in expected:
                yield f"{here} is too much"
            else:
                yield from _differences(here, expected[key], found[key])
    elif expected != found:
        yield f"{where}: {_short(expected)} expected, {_short(found)} found"


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 160 else f"{shown[:157]}..."


_AGENTS = text("""
    SELECT a.name, g.name AS gateway, a.status, a.openclaw_session_id, a.agent_token_hash, a.gateway_id,
        c.pending_hash,
        CAST(a.heartbeat_config AS text) AS heartbeat_config,
        (SELECT p.openclaw_id FROM provisioner.agent_places p
         WHERE p.agent_id = a.id AND p.gateway_id = a.gateway_id AND p.until IS NULL
         ORDER BY p.id DESC LIMIT 1) AS openclaw_id
    FROM agents a JOIN gateways g ON g.id = a.gateway_id
    LEFT JOIN provisioner.agent_credentials c ON c.agent_id = a.id ORDER BY a.name
""")
_IDS = text("""
    SELECT CAST(id AS text) AS id, 'agent' AS what, name FROM agents
    UNION ALL SELECT CAST(id AS text), 'board', name FROM boards
    UNION ALL SELECT CAST(id AS text), 'gateway', name FROM gateways
    UNION ALL SELECT CAST(id AS text), 'organization', name FROM organizations
    UNION ALL SELECT CAST(id AS text), 'user', name FROM users
""")
_OPEN = text("""
    SELECT 'jobs that have not ended' AS what, count(*) AS found FROM provisioner.jobs
        WHERE finished_at IS NULL
    UNION ALL SELECT 'rows that have not ended', count(*) FROM provisioner.job_agents
        WHERE finished_at IS NULL
    UNION ALL SELECT 'leases of jobs', count(*) FROM provisioner.jobs WHERE lease_until IS NOT NULL
    UNION ALL SELECT 'leases of rows', count(*) FROM provisioner.job_agents WHERE lease_until IS NOT NULL
    UNION ALL SELECT 'rows that are still due', count(*) FROM provisioner.job_agents
        WHERE finished_at IS NOT NULL AND (next_attempt_at IS NOT NULL OR published_at IS NOT NULL)
    UNION ALL SELECT 'jobs that are still due', count(*) FROM provisioner.jobs
        WHERE finished_at IS NOT NULL AND (next_attempt_at IS NOT NULL OR published_at IS NOT NULL)
    UNION ALL SELECT 'open intents', count(*) FROM provisioner.roster_intents
        WHERE applied_at IS NULL AND error IS NULL
    UNION ALL SELECT 'leases of roster writers', count(*) FROM provisioner.gateway_states
        WHERE writer_until > now() + make_interval(secs => :longest_s) AND writer_owner IS NOT NULL
    UNION ALL SELECT 'agents whose status is a job''s', count(*) FROM agents
        WHERE status IN ('provisioning', 'updating', 'deleting')
""")
_UNTRUE = text("""
    SELECT j.id, j.kind, j.status, 'no sentence says why' AS what FROM provisioner.jobs j
    WHERE j.status IN ('failed', 'partial') AND (j.error IS NULL OR j.reason_code IS NULL)
    UNION ALL
    SELECT j.id, j.kind, j.status, 'a row ended as ' || r.status
    FROM provisioner.jobs j JOIN provisioner.job_agents r ON r.job_id = j.id
    WHERE j.status = 'succeeded'
      AND r.status IN ('failed', 'not_attempted', 'cancelled', 'pending', 'running')
    UNION ALL
    SELECT j.id, j.kind, j.status,
        'its result counts ' || (j.result ->> 'agents_updated') || ', its rows say ' || c.good
    FROM provisioner.jobs j CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE r.status = 'succeeded' AND r.position IS NOT NULL) AS good
        FROM provisioner.job_agents r WHERE r.job_id = j.id
    ) c
    WHERE j.kind = 'sync_gateway' AND j.result ? 'agents_updated'
      AND (j.result ->> 'agents_updated')::int <> c.good
""")
