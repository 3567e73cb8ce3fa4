"""Rows of layers of templates: `provisioner.template_versions`, `template_promotions`, `template_pins` and
`override_forms` (rules.md 49).

Which version of a template an agent gets is a row: its pin, or else the layer's promotion of today. All that
concern an agent are read in the statement that loads the agent, by hash; texts are read once per process.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, bindparam, text

from worker.errors import PermanentError
from worker.masking.columns import MaskedText
from worker.rights import may_hide_rows
from worker.workspace.display_text import one_line
from worker.workspace.layers import Layers, LayerTemplate, Scope
from worker.workspace.plan import sha256_of

_CACHED_TEXTS = 512
_ROLE = "CASE WHEN a.board_id IS NULL THEN 'main' WHEN a.is_board_lead THEN 'lead' ELSE 'member' END"
_TARGETS = f"""(
    ('organization', CAST(g.organization_id AS text)), ('gateway', CAST(a.gateway_id AS text)),
    ('board', CAST(a.board_id AS text)), ('role', g.organization_id || '/' || {_ROLE}),
    ('agent', CAST(a.id AS text))
)"""
LAYERS = f"""(
    SELECT CAST(jsonb_agg(jsonb_build_array(t.scope, t.target_id, t.name, t.version, t.plain, t.sha256))
                AS text)
    FROM provisioner.template_promotions p
    LEFT JOIN provisioner.template_pins n
        ON n.agent_id = a.id AND (n.scope, n.target_id, n.name) = (p.scope, p.target_id, p.name)
    JOIN provisioner.template_versions t ON (t.scope, t.target_id, t.name) = (p.scope, p.target_id, p.name)
        AND t.version = CASE WHEN n.agent_id IS NULL THEN p.version ELSE n.version END
    WHERE p.until IS NULL AND (p.scope, p.target_id) IN {_TARGETS}
)"""
"""SQL of the templates that an agent ``a`` of gateway ``g`` gets from layers, for `layers_of`; null if there
are none."""
PLAIN_OVERRIDES = f"""(
    SELECT o.plain FROM provisioner.override_forms o WHERE (o.scope, o.target_id) IN {_TARGETS}
    ORDER BY array_position(ARRAY['organization', 'gateway', 'board', 'role', 'agent'], o.scope) DESC LIMIT 1
)"""
"""SQL of whether the overrides of an agent ``a`` of gateway ``g`` are plain text; null if nothing says so."""


class LayerError(PermanentError):
    """What was asked of a layer cannot be done; nothing was changed."""


@dataclass(frozen=True)
class LayerNames:
    """The names by which sentences call an agent's layers."""

    gateway: str | None
    board: str | None
    agent: str

    def of(self, scope: Scope, target: str) -> str:
        """What to call a layer that concerns the agent."""
        if scope == "organization":
            return "the organization"
        if scope == "role":
            return f"role {target.rpartition('/')[2]}"
        name = {"gateway": self.gateway, "board": self.board, "agent": self.agent}[scope]
        return f"{scope} {one_line(name or target)}"


@dataclass(frozen=True)
class Layer:
    """One layer. ``owner``: what sentences call it, such as ``board Launch``."""

    scope: Scope
    target: str
    owner: str

    @property
    def key(self) -> dict[str, str]:
        """The columns that tell it from others."""
        return {"scope": self.scope, "target_id": self.target}


def role_target(organization_id: UUID, role: str) -> str:
    """The target of a role's layer, which is one organization's."""
    return f"{organization_id}/{role}"


def layers_of(
    connection: Connection, rows: str | None, names: LayerNames, *, plain_overrides: bool
) -> Layers:
    """The templates that an agent gets from layers, from the columns `LAYERS` and `PLAIN_OVERRIDES`.

    Costs a statement only for texts that this process has not read yet.
    """
    if rows is None:
        return Layers((), plain_overrides)
    read = json.loads(rows)
    texts = _texts.of(connection, {row[5] for row in read})
    templates = [
        LayerTemplate(scope, target, name, version, plain, sha256, texts[sha256], names.of(scope, target))
        for scope, target, name, version, plain, sha256 in sorted(read)
    ]
    return Layers(tuple(templates), plain_overrides)


class _Texts:
    """Texts of versions by their hashes, the latest used of them, so each is read once per process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[str, str] = OrderedDict()

    def of(self, connection: Connection, hashes: Iterable[str]) -> dict[str, str]:
        """The texts of these hashes."""
        wanted = sorted(hashes)
        with self._lock:
            found = {each: self._known[each] for each in wanted if each in self._known}
        missing = [each for each in wanted if each not in found]
        if missing:
            found |= {row.sha256: row.body for row in connection.execute(_TEXTS, {"hashes": missing})}
        with self._lock:
            for each, body in found.items():
                self._known[each] = body
                self._known.move_to_end(each)
            while len(self._known) > _CACHED_TEXTS:
                self._known.popitem(last=False)
        return found


_texts = _Texts()


def add_version(
    connection: Connection, layer: Layer, name: str, body: str, *, plain: bool, note: str | None, by: str
) -> tuple[int, bool]:
    """Add a version of a template; returns its number, and whether it is new. The newest one's own text again
    makes none."""
    lock_layer(connection, layer)
    newest = connection.execute(_NEWEST, {**layer.key, "name": name}).one_or_none()
    if newest is not None and (newest.sha256, newest.plain) == (sha256_of(body), plain):
        return newest.version, False
    version = newest.version + 1 if newest is not None else 1
    row = {"version": version, "body": body, "sha256": sha256_of(body), "plain": plain, "note": note}
    connection.execute(_ADD, {**layer.key, "name": name, **row, "by": by})
    return version, True


def version_of(connection: Connection, layer: Layer, name: str, version: int | None = None) -> LayerTemplate:
    """A version of a template, by default the newest. Raises LayerError if there is none."""
    row = connection.execute(_VERSION, {**layer.key, "name": name, "version": version}).one_or_none()
    if row is None:
        which = f"version {version} of {name}" if version is not None else name
        raise LayerError(
            f"There is no {which} in the layer of {layer.owner}: `provisioner template list` shows what there"
            " is."
        )
    return _template(layer, row)


def templates_of(connection: Connection, layer: Layer) -> Sequence[Row[Any]]:
    """The names of a layer's templates, each with its newest and its promoted version (None: none)."""
    return [
        row for row in all_templates(connection) if (row.scope, row.target_id) == (layer.scope, layer.target)
    ]


def all_templates(connection: Connection) -> Sequence[Row[Any]]:
    """All templates of all layers: the newest version of each, the promoted one, and the name of the layer's
    target (None if it is gone)."""
    return connection.execute(_ALL).all()


def history_of(connection: Connection, layer: Layer, name: str) -> Sequence[Row[Any]]:
    """The versions of a template, the newest first, each with when it was promoted last and until when (None:
    until now). Raises LayerError if there is none."""
    rows = connection.execute(_HISTORY, {**layer.key, "name": name}).all()
    if not rows:
        version_of(connection, layer, name)
    return rows


def promoted_versions(connection: Connection, layer: Layer) -> dict[str, LayerTemplate]:
    """The promoted version of each template of a layer that has one."""
    rows = connection.execute(_PROMOTED, layer.key).all()
    return {row.name: _template(layer, row) for row in rows}


def pinned_templates(
    connection: Connection, layer: Layer
) -> Mapping[UUID, Mapping[str, LayerTemplate | None]]:
    """The versions of a layer's templates that single agents are pinned to, by agent and name; None: none."""
    found: defaultdict[UUID, dict[str, LayerTemplate | None]] = defaultdict(dict)
    for row in connection.execute(_PINNED, layer.key):
        found[row.agent_id][row.name] = _template(layer, row) if row.version is not None else None
    return found


def promote(
    connection: Connection, layer: Layer, versions: Mapping[str, int | None], *, by: str
) -> list[str]:
    """Have the layer's agents get these versions, by name; None: none. Returns the names that changed."""
    lock_layer(connection, layer)
    changed = []
    for name, version in versions.items():
        place = {**layer.key, "name": name}
        current = connection.execute(_CURRENT, place).one_or_none()
        if (current.version if current is not None else None) == version:
            continue
        _move(connection, place, version, before=current.id if current is not None else None, by=by)
        changed.append(name)
    return changed


def version_before(connection: Connection, layer: Layer, name: str) -> int | None:
    """The version to which a revert goes back; None: the template is delivered no more. Raises LayerError if
    there is nothing to go back to."""
    version: int | None = _before(connection, layer, name).version
    return version


def revert(connection: Connection, layer: Layer, name: str, *, by: str) -> None:
    """Go back to what was promoted before today's version; again, one further back. Raises LayerError."""
    lock_layer(connection, layer)
    row = _before(connection, layer, name)
    _move(connection, {**layer.key, "name": name}, row.version, before=row.before, by=by)


def _before(connection: Connection, layer: Layer, name: str) -> Row[Any]:
    row = connection.execute(_BEFORE, {**layer.key, "name": name}).one_or_none()
    if row is None:
        raise LayerError(
            f"No version of {name} is promoted in the layer of {layer.owner}, so there is nothing to go back"
            " from."
        )
    return row


def _move(
    connection: Connection, place: Mapping[str, str], version: int | None, *, before: Any, by: str
) -> None:
    connection.execute(_END, place)
    connection.execute(_BEGIN, {**place, "version": version, "before": before, "by": by})


def set_override_form(connection: Connection, layer: Layer, plain: bool | None, *, by: str) -> None:
    """Have the overrides of the layer's agents read as plain text, or as templates; None: as the wider layer
    says."""
    lock_layer(connection, layer)
    connection.execute(_UNSET_FORM, layer.key)
    if plain is not None:
        connection.execute(_SET_FORM, {**layer.key, "plain": plain, "by": by})


def override_forms(connection: Connection) -> Sequence[Row[Any]]:
    """All rows that say how overrides are read."""
    return connection.execute(_FORMS).all()


def forget_orphans(connection: Connection, older_than: timedelta, *, dry_run: bool = False) -> int:
    """Delete the layers of organizations, gateways, boards and agents that have no row, if nothing was set in
    them for that long. Returns how many versions of templates there were; a dry run only counts them.

    Does nothing if row-level security may hide rows: what is not seen may be there.
    """
    if may_hide_rows(connection, "agents", "boards", "gateways", "organizations"):
        return 0
    found = connection.execute(_COUNT_ORPHANS if dry_run else _FORGET_ORPHANS, {"older_than": older_than})
    return int(found.scalar_one())


def agents_of(connection: Connection, layer: Layer) -> Sequence[Row[Any]]:
    """The ids and names of the agents that a layer concerns, the oldest first."""
    statement = text(
        f"SELECT a.id, a.name FROM agents a LEFT JOIN gateways g ON g.id = a.gateway_id"
        f" WHERE (CAST(:scope AS text), CAST(:target_id AS text)) IN {_TARGETS} ORDER BY a.created_at, a.id"
    )
    return connection.execute(statement, layer.key).all()


def _template(layer: Layer, row: Any) -> LayerTemplate:
    return LayerTemplate(
        layer.scope, layer.target, row.name, row.version, row.plain, row.sha256, row.body, layer.owner
    )


def lock_layer(connection: Connection, layer: Layer) -> None:
    """Have other changes of the layer wait for the end of this transaction, so that a check holds."""
    connection.execute(_LOCK, {"layer": f"{layer.scope} {layer.target}", "seed": _LAYERS_SEED})


_LAYERS_SEED = 7_202
"""Seed that keeps these advisory locks apart from others on the database."""
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:layer, :seed))")
_TEXTS = text(
    "SELECT DISTINCT ON (sha256) sha256, body FROM provisioner.template_versions WHERE sha256 = ANY(:hashes)"
)
_OF = "scope = :scope AND target_id = :target_id"
_NEWEST = text(f"""
    SELECT version, sha256, plain FROM provisioner.template_versions WHERE {_OF} AND name = :name
    ORDER BY version DESC LIMIT 1
""")
_ADD = text("""
    INSERT INTO provisioner.template_versions
        (scope, target_id, name, version, plain, sha256, body, note, set_by)
    VALUES (:scope, :target_id, :name, :version, :plain, :sha256, :body, :note, :by)
""").bindparams(bindparam("note", type_=MaskedText))
_VERSION = text(f"""
    SELECT name, version, plain, sha256, body FROM provisioner.template_versions
    WHERE {_OF} AND name = :name AND version = coalesce(CAST(:version AS integer), version)
    ORDER BY version DESC LIMIT 1
""")
_PROMOTED = text("""
    SELECT t.name, t.version, t.plain, t.sha256, t.body
    FROM provisioner.template_promotions p JOIN provisioner.template_versions t
        ON (t.scope, t.target_id, t.name, t.version) = (p.scope, p.target_id, p.name, p.version)
    WHERE p.scope = :scope AND p.target_id = :target_id AND p.until IS NULL
""")
_PINNED = text("""
    SELECT n.agent_id, n.name, t.version, t.plain, t.sha256, t.body
    FROM provisioner.template_pins n LEFT JOIN provisioner.template_versions t
        ON (t.scope, t.target_id, t.name, t.version) = (n.scope, n.target_id, n.name, n.version)
    WHERE n.scope = :scope AND n.target_id = :target_id
""")
_CURRENT = text(f"""
    SELECT id, version FROM provisioner.template_promotions WHERE {_OF} AND name = :name AND until IS NULL
""")
_BEFORE = text("""
    SELECT e.version, e.before FROM provisioner.template_promotions p
    LEFT JOIN provisioner.template_promotions e ON e.id = p.before
    WHERE p.scope = :scope AND p.target_id = :target_id AND p.name = :name AND p.until IS NULL
      AND (p.version IS NOT NULL OR p.before IS NOT NULL)
""")
_END = text(f"""
    UPDATE provisioner.template_promotions SET until = now() WHERE {_OF} AND name = :name AND until IS NULL
""")
_BEGIN = text("""
    INSERT INTO provisioner.template_promotions (scope, target_id, name, version, before, promoted_by)
    VALUES (:scope, :target_id, :name, :version, :before, :by)
""")
_ALL = text("""
    SELECT t.scope, t.target_id, CASE t.scope
            WHEN 'organization'
                THEN (SELECT o.name FROM organizations o WHERE CAST(o.id AS text) = t.target_id)
            WHEN 'gateway' THEN (SELECT g.name FROM gateways g WHERE CAST(g.id AS text) = t.target_id)
            WHEN 'board' THEN (SELECT b.name FROM boards b WHERE CAST(b.id AS text) = t.target_id)
            WHEN 'agent' THEN (SELECT a.name FROM agents a WHERE CAST(a.id AS text) = t.target_id)
            ELSE split_part(t.target_id, '/', 2) END AS target,
        t.name, t.version, t.plain, t.sha256, t.note, t.set_by, t.set_at,
        p.version AS promoted, p.since AS promoted_at
    FROM (
        SELECT DISTINCT ON (scope, target_id, name) * FROM provisioner.template_versions
        ORDER BY scope, target_id, name, version DESC
    ) t LEFT JOIN provisioner.template_promotions p
        ON (p.scope, p.target_id, p.name) = (t.scope, t.target_id, t.name) AND p.until IS NULL
    ORDER BY array_position(ARRAY['organization', 'gateway', 'board', 'role', 'agent'], t.scope), target,
        t.target_id, t.name
""")
_HISTORY = text("""
    SELECT t.version, t.plain, t.sha256, octet_length(t.body) AS size, t.note, t.set_by, t.set_at,
        p.promoted_by, p.since AS promoted_at, p.until AS promoted_until
    FROM provisioner.template_versions t LEFT JOIN LATERAL (
        SELECT promoted_by, since, until FROM provisioner.template_promotions
        WHERE (scope, target_id, name, version) = (t.scope, t.target_id, t.name, t.version)
        ORDER BY id DESC LIMIT 1
    ) p ON true
    WHERE t.scope = :scope AND t.target_id = :target_id AND t.name = :name ORDER BY t.version DESC
""")
_SET_FORM = text("""
    INSERT INTO provisioner.override_forms (scope, target_id, plain, set_by)
    VALUES (:scope, :target_id, :plain, :by)
""")
_UNSET_FORM = text(f"DELETE FROM provisioner.override_forms WHERE {_OF}")
_FORMS = text("SELECT scope, target_id, plain, set_by, set_at FROM provisioner.override_forms ORDER BY 1, 2")
_ORPHANED = """
    orphaned AS (
        SELECT scope, target_id FROM (
            SELECT scope, target_id, set_at FROM provisioner.template_versions
            UNION ALL SELECT scope, target_id, set_at FROM provisioner.override_forms
        ) t
        WHERE NOT EXISTS (
            SELECT FROM organizations WHERE t.scope IN ('organization', 'role')
                AND CAST(id AS text) = split_part(t.target_id, '/', 1)
            UNION ALL SELECT FROM gateways WHERE t.scope = 'gateway' AND CAST(id AS text) = t.target_id
            UNION ALL SELECT FROM boards WHERE t.scope = 'board' AND CAST(id AS text) = t.target_id
            UNION ALL SELECT FROM agents WHERE t.scope = 'agent' AND CAST(id AS text) = t.target_id
        )
        GROUP BY scope, target_id HAVING max(set_at) < now() - CAST(:older_than AS interval)
    )
"""
_COUNT_ORPHANS = text(f"""
    WITH {_ORPHANED}
    SELECT count(*) FROM provisioner.template_versions WHERE (scope, target_id) IN (TABLE orphaned)
""")
_FORGET_ORPHANS = text(f"""
    WITH {_ORPHANED}, versions AS (
        DELETE FROM provisioner.template_versions WHERE (scope, target_id) IN (TABLE orphaned) RETURNING 1
    ), promotions AS (
        DELETE FROM provisioner.template_promotions WHERE (scope, target_id) IN (TABLE orphaned)
    ), forms AS (
        DELETE FROM provisioner.override_forms WHERE (scope, target_id) IN (TABLE orphaned)
    ), pins AS (
        DELETE FROM provisioner.template_pins n WHERE n.pinned_at < now() - CAST(:older_than AS interval)
            AND NOT EXISTS (SELECT FROM agents WHERE id = n.agent_id)
    )
    SELECT count(*) FROM versions
""")
