"""Rows of `provisioner.sync_windows`: when a gateway may be restarted and its agents woken (rules.md 55)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, text

from worker.errors import TransientError
from worker.jobs.requests import BadRequestError
from worker.jobs.states import ReasonCode
from worker.jobs.store.releasing import make_window_waits_due
from worker.jobs.sync_windows import NeverOpensError, SyncWindow, counting, local, opens_at, require_openings


class WindowClosedError(TransientError):
    """A change has to wait ``wait_s`` seconds for a gateway's sync window; the sentence says until when.

    The row is set back (`worker.jobs.states`): nothing has failed, and no retry timeout runs.
    """

    reason_code = ReasonCode.WAITING_FOR_WINDOW

    def __init__(self, message: str, wait_s: float, windows: GatewayWindows) -> None:
        super().__init__(message, retry_after_s=wait_s)
        self.wait_s = wait_s
        self._windows = windows

    def wait_from_now(self, connection: Connection) -> float:
        """For how many seconds to wait, which is none if the windows were changed since they were read. They
        cannot be changed until the transaction ends, in which the caller has to store the wait."""
        gateways = sorted(self._windows.windows)
        for gateway_id in gateways:
            connection.execute(_LOCK_SHARED, {"gateway_id": gateway_id})
        unchanged = load_windows(connection, gateways).windows == self._windows.windows
        return self.wait_s if unchanged else 0.0


def windows_sql(gateways: str) -> str:
    """SQL of the windows of the ``gateways`` that a subquery selects, with the database's time, for
    `windows_of`; null if there are none."""
    return f"""(
        SELECT jsonb_build_object('now', extract(epoch FROM now()), 'windows', jsonb_agg(jsonb_build_array(
            wg.name, w.gateway_id, w.effect, w.cron, extract(epoch FROM w.duration), w.timezone,
            w.everything) ORDER BY w.created_at, w.id))
        FROM provisioner.sync_windows w JOIN gateways wg ON wg.id = w.gateway_id
        WHERE w.gateway_id IN ({gateways}) HAVING count(*) > 0
    )"""


@dataclass(frozen=True)
class GatewayWindows:
    """The windows of one gateway, or of a few by their ids, as they were read at ``now`` by the database's
    clock."""

    now: datetime
    names: Mapping[UUID, str] = field(default_factory=dict)
    windows: Mapping[UUID, tuple[SyncWindow, ...]] = field(default_factory=dict)

    def require_open(
        self, options: Mapping[str, Any], *, asked: bool, of: Collection[UUID] | None = None
    ) -> None:
        """Raise WindowClosedError while those of one of the gateways ``of``, or of any, are closed, unless
        the request with these ``options`` only looks, or says that it does not wait.

        ``asked``: the change is a delete, a first provision or a rotation that somebody asked for. Raises
        NeverOpensError.
        """
        if options.get("now") is True or options.get("dry_run") is True:
            return
        closed: list[tuple[datetime, str]] = []
        for gateway_id in self.windows if of is None else of:
            windows = counting(self.windows.get(gateway_id, ()), asked=asked)
            try:
                opens = opens_at(windows, self.now)
            except NeverOpensError as error:
                raise NeverOpensError(
                    f"The sync windows of gateway {self.names[gateway_id]!r} never open: {error}"
                ) from None
            if opens is not None:
                closed.append(
                    (
                        opens,
                        f"waiting for the sync window of gateway {self.names[gateway_id]!r}, which opens at"
                        f" {local(opens, windows)}",
                    )
                )
        if closed:
            opens, sentence = max(closed)
            raise WindowClosedError(sentence, (opens - self.now).total_seconds(), self)


NO_WINDOWS = GatewayWindows(datetime.min.replace(tzinfo=UTC))


def windows_of(selected: Any) -> GatewayWindows:
    """The windows in a value that `windows_sql` has selected."""
    if selected is None:
        return NO_WINDOWS
    names: dict[UUID, str] = {}
    windows: dict[UUID, tuple[SyncWindow, ...]] = {}
    for name, gateway_id, effect, cron, duration_s, timezone, everything in selected["windows"]:
        key = UUID(gateway_id)
        names[key] = name
        window = SyncWindow(effect, cron, timedelta(seconds=duration_s), timezone, everything)
        windows[key] = (*windows.get(key, ()), window)
    return GatewayWindows(datetime.fromtimestamp(selected["now"], UTC), names, windows)


_WINDOWS = text(f"SELECT {windows_sql('SELECT unnest(CAST(:gateways AS uuid[]))')}")


def load_windows(connection: Connection, gateways: Collection[UUID]) -> GatewayWindows:
    """Read the windows of these gateways."""
    return windows_of(connection.execute(_WINDOWS, {"gateways": list(gateways)}).scalar_one())


@dataclass(frozen=True)
class StoredWindow:
    """A window as stored. ``gateway_name``: None if the gateway has no row any more."""

    id: UUID
    gateway_id: UUID
    gateway_name: str | None
    window: SyncWindow


_KEY = "hashtextextended('sync_windows ' || CAST(:gateway_id AS text), 0)"
_LOCK = text(f"SELECT pg_advisory_xact_lock({_KEY})")
_LOCK_SHARED = text(f"SELECT pg_advisory_xact_lock_shared({_KEY})")
_ADD = text("""
    INSERT INTO provisioner.sync_windows (id, gateway_id, effect, cron, duration, timezone, everything)
    VALUES (:id, :gateway_id, :effect, :cron, :duration, :timezone, :everything)
""")
_REMOVE = text("DELETE FROM provisioner.sync_windows WHERE id = :id")
_LIST = text("""
    SELECT w.id, w.gateway_id, g.name, w.effect, w.cron, extract(epoch FROM w.duration)::float AS duration_s,
        w.timezone, w.everything
    FROM provisioner.sync_windows w LEFT JOIN gateways g ON g.id = w.gateway_id
    WHERE CAST(:gateway_id AS uuid) IS NULL OR w.gateway_id = :gateway_id
    ORDER BY g.name, w.gateway_id, w.created_at, w.id
""")
_NOW = text("SELECT now()")


def stored_windows(connection: Connection, gateway_id: UUID | None = None) -> list[StoredWindow]:
    """The windows of the gateway, or of all, oldest first within a gateway."""
    return [
        StoredWindow(
            row.id,
            row.gateway_id,
            row.name,
            SyncWindow(row.effect, row.cron, timedelta(seconds=row.duration_s), row.timezone, row.everything),
        )
        for row in connection.execute(_LIST, {"gateway_id": gateway_id})
    ]


def add_window(connection: Connection, gateway_id: UUID, window: SyncWindow) -> UUID:
    """Add a window to a gateway's, and have what waits look again. Returns its id.

    Raises BadRequestError for an unusable window, for one that the gateway has already, and if the gateway's
    windows would then never open.
    """
    window.check()
    connection.execute(_LOCK, {"gateway_id": gateway_id})
    before = stored_windows(connection, gateway_id)
    for each in before:
        if each.window == window:
            raise BadRequestError(f"The gateway has this window already: {each.id}.")
    now = connection.execute(_NOW).scalar_one()
    require_openings([*(each.window for each in before), window], now)
    key = uuid4()
    values = {**vars(window), "id": key, "gateway_id": gateway_id}
    connection.execute(_ADD, values)
    make_window_waits_due(connection, gateway_id)
    return key


def remove_window(connection: Connection, stored: StoredWindow) -> None:
    """Remove a window of a gateway, and have what waits look again.

    Raises NeverOpensError if the gateway's other windows would then never open.
    """
    connection.execute(_LOCK, {"gateway_id": stored.gateway_id})
    others = [each.window for each in stored_windows(connection, stored.gateway_id) if each.id != stored.id]
    if stored.gateway_name is not None:
        require_openings(others, connection.execute(_NOW).scalar_one())
    connection.execute(_REMOVE, {"id": stored.id})
    make_window_waits_due(connection, stored.gateway_id)
