"""Makes an agent's bundle from its rows and its gateway, before anything of it is removed (rules.md 52)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

from worker.agents.found_agent import look_at_roster
from worker.gateway.agent_files import AgentFiles
from worker.gateway.dialect import Dialect
from worker.gateway.errors import PermanentGatewayError
from worker.gateway.roster_reading import RosterUnknownError
from worker.gateway.variables import REDACTED, place_in
from worker.gateway.workspace_reading import ReadWorkspace, read_workspace
from worker.masking import MASK, mask_all, remember
from worker.masking.known_secrets import mask_known
from worker.masking.secret_patterns import mask_minted
from worker.printable import line
from worker.records.bundles import AgentRows, rows_of
from worker.records.gateway_repository import GatewayRecord
from worker.records.places import Place
from worker.runtime.services import Services
from worker.workspace.bundle import Bundle, LeftOut, masked_copy
from worker.workspace.display_text import one_line
from worker.workspace.three_sides import as_rendered
from worker.workspace.tokens import PLACEHOLDER, find_token, token_values

_SESSIONS = LeftOut("its sessions", "no release lets one put a conversation back")
_NOT_THERE = "its gateway has no such agent"


@dataclass(frozen=True)
class _Shown:
    """What a gateway shows of an agent. ``carrier``: the file that holds its token; ``release``: the
    gateway's."""

    entry: Mapping[str, Any] | None = None
    workspace: ReadWorkspace = field(default_factory=ReadWorkspace)
    carrier: str | None = None
    release: str | None = None
    whole: bool = False


def read_bundle(
    services: Services, agent_id: UUID, place: Place | None, gateway: GatewayRecord | None
) -> Bundle:
    """The bundle of an agent that lives in ``place``. ``gateway``: the one that is asked, None if it has no
    row.

    What cannot be read by anybody becomes a line of ``left_out``. Raises TransientError, for which the
    caller tries again, and PermanentGatewayError for a gateway that does not let us in.
    """
    with services.engine.connect() as connection:
        rows = rows_of(connection, agent_id, place)
    shown = _Shown(workspace=ReadWorkspace(left_out=[LeftOut("its workspace", "no gateway of it is known")]))
    if gateway is not None and place is not None:
        shown = _shown(services, gateway, place.openclaw_id)
    secrets = [gateway.address.token] if gateway is not None else []
    return _protected(services, agent_id, place, rows, shown, secrets)


def rows_alone(bundle: Bundle) -> str:
    """The sentence that a bundle without files comes with."""
    why = next((one.why for one in bundle.left_out if one.what == "its workspace"), "")
    return f"Its bundle holds its rows alone, and none of its files: {why}."


def masked_in(bundle: Bundle) -> str:
    """The sentence that a bundle comes with in which secrets were masked."""
    return (
        f"Secrets are masked in its bundle, in {', '.join(sorted(bundle.masked))}: `provisioner restore`"
        " leaves that out, or with --allow-masked brings it back with the marks."
    )


def _shown(services: Services, gateway: GatewayRecord, openclaw_id: str) -> _Shown:
    client = services.clients.client(gateway.address)
    hello = services.retry_inline(client.hello)
    dialect = Dialect.from_hello(hello.server_version, hello.methods)
    left = ReadWorkspace()
    entry: Mapping[str, Any] | None = None
    try:
        roster = look_at_roster(services, client, dialect)
        entry = roster.live.entries.get(openclaw_id)
        known = openclaw_id in roster.live.known
    except RosterUnknownError as error:
        left.left_out.append(LeftOut("its roster entry", line(str(error), 300)))
        known = True
    if not known:
        left.left_out.append(LeftOut("its workspace", _NOT_THERE))
        return _Shown(None, left, None, hello.server_version)
    files = AgentFiles(client, dialect, openclaw_id)
    try:
        found = services.retry_inline(lambda: read_workspace(files))
    except PermanentGatewayError as error:
        left.left_out.append(LeftOut("its workspace", line(str(error), 300)))
        return _Shown(entry, left, dialect.credentials_in, hello.server_version)
    found.left_out[:0] = left.left_out
    if not dialect.lists_workspace:
        why = "this release shows eight files, and no other and no folder"
        found.left_out.append(LeftOut("whatever else is in its workspace", why))
    return _Shown(entry, found, dialect.credentials_in, hello.server_version, whole=True)


def _protected(
    services: Services,
    agent_id: UUID,
    place: Place | None,
    rows: AgentRows,
    shown: _Shown,
    secrets: Iterable[str | None],
) -> Bundle:
    """The bundle, with no token in it, and with no other secret unless it will be encrypted."""
    files = shown.workspace.files
    texts = {path: text for path, content in files.items() if (text := _text(content)) is not None}
    live = _live_token(texts.get(shown.carrier or ""), shown.carrier)
    assigned = {value for text in texts.values() for value in token_values(text)} - {live, PLACEHOLDER}
    known = {secret for secret in (live, *assigned, *secrets) if secret and len(secret) >= _SHORTEST_SECRET}
    remember(live, *assigned)
    left = [*shown.workspace.left_out, _SESSIONS]
    entry, hidden = _without_redacted(shown.entry)
    left += [LeftOut(f"{path} in its roster entry", "its gateway does not show secrets") for path in hidden]
    left += [
        LeftOut(f"its own template of {name}", "layers of templates stay where they are")
        for name in rows.layers
    ]
    carrier = shown.carrier
    bundle = Bundle(
        agent=_agent(agent_id, place, rows, shown),
        row=rows.row,
        settings=rows.settings,
        entry=entry,
        files={
            path: as_rendered(texts[path], live).encode() if path == carrier and path in texts else content
            for path, content in files.items()
        },
        delivered={name: text for name, text in rows.delivered.items() if name in files},
        left_out=tuple(left),
        whole=shown.whole,
    )
    if services.settings.bundle_keys:
        return masked_copy(bundle, partial(_without_tokens, frozenset(known)), keep_binaries=True)
    return masked_copy(bundle, partial(mask_all, tokens=known))


_SHORTEST_SECRET = 8


def _without_tokens(known: frozenset[str], value: Any) -> Any:
    """A JSON value with marks in place of known secrets, and of what has the form of a token of ours: of
    those of other agents only hashes are known."""
    if isinstance(value, str):
        return mask_minted(mask_known(value, known, MASK), MASK)
    if isinstance(value, Mapping):
        return {key: _without_tokens(known, each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_tokens(known, each) for each in value]
    return value


def _text(content: bytes) -> str | None:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _live_token(text: str | None, carrier: str | None) -> str | None:
    if text is None:
        return None
    return find_token(text, section=carrier == "AGENTS.md")


def _agent(agent_id: UUID, place: Place | None, rows: AgentRows, shown: _Shown) -> dict[str, Any]:
    return {
        "id": str(agent_id),
        "name": rows.row.get("name") or _entry_name(shown.entry),
        "openclaw_id": place.openclaw_id if place is not None else None,
        "session_key": place.session_key if place is not None else None,
        "workspace": (place.resolved_workspace or place.workspace) if place is not None else None,
        "adopted": place.adopted if place is not None else False,
        "gateway_id": str(place.gateway_id) if place is not None else None,
        "gateway": rows.gateway,
        "board": rows.board,
        "organization_id": str(rows.organization_id) if rows.organization_id is not None else None,
        "release": shown.release,
        "carrier": shown.carrier,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _entry_name(entry: Mapping[str, Any] | None) -> str | None:
    name = (entry or {}).get("name")
    return one_line(name) if isinstance(name, str) else None


def _without_redacted(entry: Mapping[str, Any] | None) -> tuple[Any, list[str]]:
    """The entry without what the gateway redacted, and the paths of that."""
    hidden: list[str] = []

    def without(value: Any, path: str) -> Any:
        if isinstance(value, Mapping):
            inner = {key: (place_in(path, key), each) for key, each in value.items()}
            return {key: without(each, at) for key, (at, each) in inner.items() if _shows(each, at, hidden)}
        if isinstance(value, list):
            places: Sequence[tuple[str, Any]] = [(f"{path}[{n}]", each) for n, each in enumerate(value)]
            return [without(each, at) for at, each in places if _shows(each, at, hidden)]
        return value

    return (None if entry is None else without(entry, "")), hidden


def _shows(value: Any, path: str, hidden: list[str]) -> bool:
    if value != REDACTED:
        return True
    hidden.append(path)
    return False
