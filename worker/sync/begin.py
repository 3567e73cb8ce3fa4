"""The first step of a sync: creates its agents' rows, from the database alone."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from worker.jobs.requests import BadRequestError, SyncGateway
from worker.jobs.store.job_leases import JobClaim
from worker.jobs.store.sync_jobs import start_sync


def begin(
    connection: Connection, job_id: UUID, request: SyncGateway, *, lease_s: float | None = None
) -> JobClaim | None:
    """Start a queued sync and create its agents' rows. If another sync of the gateway is running, have this
    one wait for it and return None.

    ``lease_s``: for how many seconds the caller holds the sync's row; None leaves it to whoever gets its
    message. Raises BadRequestError for an unusable gateway, board or user (rules.md 13, 21, 31), and
    OvertakenError if ``lease_s`` is given.
    """
    gateway = require_usable(connection, request)
    return start_sync(connection, job_id, request, gateway.organization_id, lease_s=lease_s)


def require_usable(connection: Connection, request: SyncGateway) -> Row[Any]:
    """The name, URL and organization of the request's gateway.

    Raises BadRequestError for an unusable gateway, board or user (rules.md 13, 21, 31).
    """
    gateway = connection.execute(_GATEWAY, {"id": request.gateway_id}).one_or_none()
    if gateway is None:
        raise BadRequestError(f"There is no gateway with gateway_id {request.gateway_id}.")
    where = f"Gateway {gateway.name!r} ({request.gateway_id})"
    if not (gateway.url or "").strip():
        raise BadRequestError(f"{where} has no URL: set gateways.url.")
    if request.board_id is not None:
        _require_board(connection, request.board_id, request.gateway_id, where)
    if request.user_id is not None:
        parameters = {"user_id": request.user_id, "organization_id": gateway.organization_id}
        if not connection.scalar(_IS_MEMBER, parameters):
            raise BadRequestError(
                f"The user_id {request.user_id} is not a member of the organization of gateway"
                f" {gateway.name!r}."
            )
    return gateway


def _require_board(connection: Connection, board_id: UUID, gateway_id: UUID, where: str) -> None:
    board = connection.execute(_BOARD, {"id": board_id}).one_or_none()
    if board is None:
        raise BadRequestError(f"There is no board with board_id {board_id}.")
    if board.gateway_id != gateway_id:
        raise BadRequestError(f"board_id: board {board.name!r} ({board_id}) is not on {where}.")


_GATEWAY = text("SELECT name, url, organization_id FROM gateways WHERE id = :id")
_BOARD = text("SELECT name, gateway_id FROM boards WHERE id = :id")
_IS_MEMBER = text("""
    SELECT EXISTS (SELECT FROM organization_members
                   WHERE user_id = :user_id AND organization_id = :organization_id)
""")
