"""Makes the row of an agent anew from its bundle, or says what it would need (rules.md 52)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from worker.records.agent_rows import zeros_for
from worker.rights import require_all_rows, require_for
from worker.workspace.bundle import Bundle, BundleError, LeftOut
from worker.workspace.display_text import one_line

_STATE: Mapping[str, Any] = {
    "status": "offline",
    "openclaw_session_id": None,
    "provision_requested_at": None,
    "provision_action": None,
    "delete_requested_at": None,
    "last_seen_at": None,
}
"""Columns that say what was going on with the agent, which is over."""
_PORTABLE = ("name", "heartbeat_config", "identity_profile", "identity_template", "soul_template")
"""Columns that mean the same on any board of any deployment."""


def own_row(connection: Connection, agent_id: UUID, bundle: Bundle) -> dict[str, Any]:
    """The row as it was. Raises BundleError if the bundle holds none, or if its gateway or board is gone."""
    row = dict(bundle.row)
    if not row:
        raise BundleError(
            "The bundle holds no row of the agent, which had none any more: `provisioner agent export`"
            " and `provisioner agent import FILE --board BOARD` make a new agent of it."
        )
    if str(row.get("id")) != str(agent_id):
        raise BundleError(f"The bundle is of agent {row.get('id')}, and not of {agent_id}.")
    values = {"gateway_id": _id_or_none(row.get("gateway_id")), "board_id": _id_or_none(row.get("board_id"))}
    found = connection.execute(_NEEDED, values).one()
    missing = []
    if found.gateway is None:
        missing.append(f"gateway {bundle.agent.get('gateway')!r} ({row.get('gateway_id')})")
    if row.get("board_id") is not None and found.board is None:
        missing.append(f"board {bundle.agent.get('board')!r} ({row.get('board_id')})")
    if missing:
        raise BundleError(
            f"The agent cannot be restored, because its {' and its '.join(missing)} is gone: `provisioner"
            " agent export` and `provisioner agent import FILE --board BOARD` make a new agent of its bundle."
        )
    return {**row, **_STATE}


def copied_row(connection: Connection, agent_id: UUID, bundle: Bundle, board_id: UUID) -> dict[str, Any]:
    """The row of a new agent of a board, with what the bundle says of it. Raises BundleError."""
    board = connection.execute(_BOARD, {"board_id": board_id}).one_or_none()
    if board is None:
        raise BundleError(f"There is no board {board_id}.")
    if board.gateway_id is None:
        raise BundleError(f"Board {board.name!r} has no gateway, so nothing can run on it.")
    row = {name: bundle.row[name] for name in _PORTABLE if name in bundle.row}
    name = one_line(str(row.get("name") or bundle.agent.get("name") or bundle.agent.get("openclaw_id") or ""))
    return row | {
        "id": str(agent_id),
        "board_id": str(board_id),
        "gateway_id": str(board.gateway_id),
        "name": name or "Imported agent",
        "is_board_lead": False,
        "status": "offline",
    }


def put_row(
    connection: Connection,
    agent_id: UUID,
    row: Mapping[str, Any],
    bundle: Bundle,
    kind: str,
    *,
    allow_masked: bool,
) -> list[LeftOut]:
    """Insert the row and the agent's own settings; return what was not taken over. ``kind``: of the job.

    A row that is there without a token is that of a restoration that did not come to its end. Raises
    BundleError if the agent is there, and PermanentError if the database role may not insert it.
    """
    there = connection.execute(_THERE, {"agent_id": agent_id}).one_or_none()
    if there is not None and there.has_token:
        raise BundleError(
            f"Agent {one_line(there.name)!r} ({agent_id}) is there, so nothing was restored: `provisioner"
            " delete` it first, or take its files from `provisioner agent export --bundle ID`."
        )
    left: list[LeftOut] = []
    if there is None:
        require_all_rows(connection, "agents")
        require_for(connection, kind)
        left += _insert(connection, row, bundle, allow_masked=allow_masked)
    for setting in bundle.settings:
        name = str(setting["field"])
        if f"setting {name}" in bundle.masked:
            left.append(LeftOut(f"Setting {name}", "a secret in it was masked"))
            continue
        values = {"agent_id": agent_id, "field": name, "value": json.dumps(setting["value"])}
        connection.execute(_SETTING, {**values, "locked": setting.get("locked") is True})
    return left


def _insert(
    connection: Connection, row: Mapping[str, Any], bundle: Bundle, *, allow_masked: bool
) -> list[LeftOut]:
    columns = set(connection.execute(_COLUMNS).scalars())
    kept = {name: value for name, value in row.items() if name in columns}
    left = [
        LeftOut(f"Column {name}", "a secret in it was masked: --allow-masked restores it with the mark")
        for name in kept
        if f"column {name}" in bundle.masked and name != "name" and not allow_masked
    ]
    hidden = {one.what.removeprefix("Column ") for one in left}
    kept = {name: value for name, value in kept.items() if name not in hidden}
    now = {name for name in ("created_at", "updated_at") if kept.get(name) is None}
    zeros = zeros_for(connection, {*kept, *now})
    values = [f'r."{name}"' for name in kept if name not in now]
    names = [f'"{name}"' for name in kept if name not in now] + [
        f'"{name}"' for name in (*sorted(now), *zeros)
    ]
    values += ["now() AT TIME ZONE 'utc'" for _ in now] + list(zeros.values())
    statement = text(
        f"INSERT INTO agents ({', '.join(names)}) SELECT {', '.join(values)}"
        " FROM jsonb_populate_record(CAST(NULL AS agents), CAST(:row AS jsonb)) AS r"
    )
    connection.execute(statement, {"row": json.dumps(kept, default=str)})
    return left


def _id_or_none(value: object) -> UUID | None:
    try:
        return UUID(str(value))
    except ValueError:
        return None


_NEEDED = text("""
    SELECT (SELECT id FROM gateways WHERE id = CAST(:gateway_id AS uuid)) AS gateway,
        (SELECT id FROM boards WHERE id = CAST(:board_id AS uuid)) AS board
""")
_BOARD = text("SELECT name, gateway_id FROM boards WHERE id = :board_id")
_THERE = text("SELECT name, agent_token_hash IS NOT NULL AS has_token FROM agents WHERE id = :agent_id")
_COLUMNS = text("""
    SELECT attname FROM pg_attribute
    WHERE attrelid = to_regclass('agents') AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
      AND attidentity = ''
""")
_SETTING = text("""
    INSERT INTO provisioner.agent_settings (scope, target_id, field, value, locked)
    VALUES ('agent', :agent_id, :field, CAST(:value AS jsonb), :locked)
    ON CONFLICT DO NOTHING
""")
