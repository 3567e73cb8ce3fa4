"""Decides what a removal may take off a gateway, under the writer's lease and just before each removal.

An entry is removed only if it belongs to the agent being removed, and files only if no other agent uses them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from worker.gateway.agent_ids import IMPLICIT_AGENT, canonical_id
from worker.gateway.client import Call, GatewayClient
from worker.gateway.documents import items
from worker.gateway.errors import GatewayError, PermanentGatewayError, UnknownAgent
from worker.gateway.folders import (
    AgentFolders,
    folders_of,
    home_folder,
    is_inside,
    overlapping,
    resolve_home,
    same_folder,
)
from worker.gateway.roster_reading import LiveRoster, RosterUnknownError, read_roster
from worker.records.places import keeps
from worker.roster.intents import Intent
from worker.roster.memory_files import reason_to_keep_memory_files
from worker.roster.namesakes import Namesake, namesakes_of, reason_to_keep_folder
from worker.roster.shared_folders import MOST_ASKED, user_by_another_path
from worker.shutdown_flag import shutting_down
from worker.workspace.display_text import one_line
from worker.workspace.identity import derived_id, derived_workspace_path

LOADING_S = 10.0
"""Seconds to wait for a gateway that has not loaded its config yet; measured: 0.6 s."""
_LOADING_PAUSE_S = 0.15
_MOST_NAMED = 5
_LOOKS, _LOOK_PAUSE_S = 3, 0.5


@dataclass(frozen=True)
class EntryOwnership:
    """What our rows say about an entry to be removed.

    ``owner``: the agent that owns the entry, None if that is the agent being removed or nobody; ``given``:
    the folders that we assigned to the agent under that id; ``namesakes``: agents with that id on the
    gateways of other rows; ``departs``: the agent has moved and is not being deleted; ``awake``: the agent
    has been woken or seen; ``delivered``: by name, the SHA-256 of what we last wrote into its files there.
    """

    owner: str | None
    given: tuple[str, ...]
    namesakes: tuple[Namesake, ...] = ()
    departs: bool = False
    awake: bool = False
    delivered: Mapping[str, str] = field(default_factory=dict)


_HOLDER = text("""
    SELECT p.agent_id, a.id, a.name, a.status, a.board_id, a.is_board_lead, a.gateway_id,
        (SELECT kind FROM provisioner.jobs WHERE id = :job_id) IS DISTINCT FROM 'delete_agent' AS departs,
        (SELECT options -> 'only_orphan' FROM provisioner.jobs WHERE id = :job_id) = 'true' AS only_orphan,
        a.last_seen_at IS NOT NULL OR EXISTS (
            SELECT FROM provisioner.job_agents r WHERE r.agent_id = a.id AND r.woken_at IS NOT NULL
        ) AS awake,
        (SELECT jsonb_object_agg(f.name, f.source_sha256) FROM provisioner.agent_files f
         WHERE f.agent_id = a.id AND f.gateway_id = p.gateway_id) AS delivered
    FROM provisioner.agent_places p LEFT JOIN agents a ON a.id = p.agent_id
    WHERE p.gateway_id = :gateway_id AND p.openclaw_id = :openclaw_id AND p.until IS NULL
""")
_CLAIMANTS = text("""
    SELECT id, name, status, board_id, is_board_lead, gateway_id FROM agents
    WHERE (id <> :agent_id
           OR (SELECT options -> 'only_orphan' FROM provisioner.jobs WHERE id = :job_id) = 'true')
      AND gateway_id = :gateway_id
      AND (id = :key OR board_id = :key OR board_id IS NULL)
    ORDER BY created_at, id
""")
_GIVEN = text("""
    SELECT workspace, resolved_workspace FROM provisioner.agent_places
    WHERE agent_id = :agent_id AND gateway_id = :gateway_id AND openclaw_id = :openclaw_id ORDER BY id DESC
""")


def entry_ownership(
    connection: Connection, gateway_id: UUID, workspace_root: str, intent: Intent
) -> EntryOwnership:
    """Look up which agent owns the entry now, and what else matters for its removal.

    An entry belongs to the agent that has a live place under its id. If there is none, or if that agent's row
    is gone, it belongs to the agent whose row calls for that id. An agent that was to be removed as an
    orphan, and has a row again, owns its entry too.
    """
    entry = {"gateway_id": gateway_id, "openclaw_id": intent.openclaw_id}
    holder = connection.execute(_HOLDER, {**entry, "job_id": intent.job_id}).one_or_none()
    given = [
        folder
        for row in connection.execute(_GIVEN, {**entry, "agent_id": intent.agent_id})
        for folder in (row.workspace, row.resolved_workspace)
    ]
    given.append(derived_workspace_path(workspace_root, intent.openclaw_id))
    folders = tuple(dict.fromkeys(folder for folder in given if folder))
    beside = tuple(namesakes_of(connection, gateway_id, intent.openclaw_id))
    if holder is not None and holder.id == intent.agent_id and holder.only_orphan:
        return EntryOwnership(_named(holder.name, holder.id), folders)
    if holder is not None and holder.agent_id == intent.agent_id and holder.id is not None:
        return EntryOwnership(None, folders, beside, holder.departs, holder.awake, holder.delivered or {})
    if holder is not None and holder.agent_id != intent.agent_id:
        return EntryOwnership(_named(holder.name, holder.agent_id), folders)
    made = derived_id(intent.openclaw_id)
    if made is not None:
        parameters = {
            "agent_id": intent.agent_id,
            "gateway_id": gateway_id,
            "key": made.key,
            "job_id": intent.job_id,
        }
        for row in connection.execute(_CLAIMANTS, parameters):
            if keeps(row, gateway_id, intent.openclaw_id):
                return EntryOwnership(_named(row.name, row.id), folders)
    return EntryOwnership(None, folders, beside)


def _named(name: str | None, agent_id: UUID) -> str:
    return f"agent {one_line(name)!r} ({agent_id})" if name else f"agent {agent_id}"


def owned_by_another(openclaw_id: str, owner: str) -> str:
    """The warning that an entry was not removed because another agent owns it."""
    return f"{openclaw_id} belongs to {owner} today, so it was left on the gateway."


def reason_to_keep_files(
    client: GatewayClient, live: LiveRoster, openclaw_id: str, found: EntryOwnership
) -> str | None:
    """Why an entry's files must stay when the entry is removed, or None if they may be deleted.

    They may be if the folder is the one that we assigned, no other agent uses it, and an agent that has moved
    left no notes of its own in it. Raises GatewayError.
    """
    given, folders = found.given, folders_of(live)
    own = folders.pop(openclaw_id)
    home = home_folder(live)
    workspace = own.workspace
    if workspace is None or not _is_given(own, given, home):
        at = workspace or "the gateway's default folder"
        ours = given[0] if given else "none that we know of"
        return (
            f"{openclaw_id} was given the folder {ours}, but its workspace on the gateway is {at}: its entry"
            " was removed and both folders were left. Delete what is not needed there by hand; the one that"
            " we gave may hold its token."
        )
    moved = own.agent_dir and not own.agent_dir.rstrip("/").endswith(f"/agents/{openclaw_id}/agent")
    if moved:
        return (
            f"{openclaw_id} has its state in {own.agent_dir}, where its owner put it: its entry was removed,"
            f" that folder and its workspace {workspace} were left."
        )
    used, unseen = _used_by_others(client, folders, home)
    if unseen:
        return _unseen(openclaw_id, workspace, unseen[0])
    for key, folder in overlapping(workspace, used):
        return (
            f"The workspace of {openclaw_id}, {workspace}, is also used by {key} ({folder}): its entry was"
            " removed and the folder was left."
        )
    strangers = [key for key in folders if derived_id(key) is None]
    user, all_seen = user_by_another_path(client, openclaw_id, strangers)
    if user is not None:
        return (
            f"The workspace of {openclaw_id}, {workspace}, is also used by {user} under another path"
            f" ({folders[user].workspace or 'its default'}): its entry was removed and the folder was left."
        )
    if not all_seen:
        return _unseen(openclaw_id, workspace, strangers[0])
    kept = reason_to_keep_folder(client, live, openclaw_id, workspace, found.namesakes)
    if kept is None and found.departs:
        return reason_to_keep_memory_files(
            client, live, openclaw_id, workspace, found.delivered, awake=found.awake
        )
    return kept


def _unseen(openclaw_id: str, workspace: str, other: str) -> str:
    return (
        f"Which folder {other} uses cannot be seen, so the entry of {openclaw_id} was removed and its"
        f" workspace {workspace} was left: delete it by hand where nobody else needs it."
    )


def _is_given(own: AgentFolders, given: Sequence[str], home: str | None) -> bool:
    shown = [folder for folder in (own.workspace, own.written) if folder]
    return any(
        same_folder(folder, resolve_home(ours, home)) or same_folder(folder, ours)
        for folder in shown
        for ours in given
    )


def _used_by_others(
    client: GatewayClient, others: Mapping[str, AgentFolders], home: str | None
) -> tuple[dict[str, list[str]], list[str]]:
    """The folders of all other agents, by id, and the ids of those whose folder the gateway does not tell.

    The gateway is asked for the folder of each agent whose config names none.
    """
    used = {key: [resolve_home(folder, home) for folder in folders.all] for key, folders in others.items()}
    unnamed = [key for key, folders in others.items() if folders.workspace is None]
    if not others:
        unnamed = [IMPLICIT_AGENT]
    asked, unseen = unnamed[:MOST_ASKED], unnamed[MOST_ASKED:]
    answers = (
        client.call_many([Call("agents.files.list", {"agentId": key}) for key in asked]) if asked else []
    )
    for key, answer in zip(asked, answers, strict=True):
        if isinstance(answer, UnknownAgent):
            continue
        if isinstance(answer, GatewayError) and not isinstance(answer, PermanentGatewayError):
            raise answer
        folder = None if isinstance(answer, GatewayError) else answer.get("workspace")
        if isinstance(folder, str):
            used.setdefault(key, []).append(folder)
        else:
            unseen.append(key)
    return used, unseen


def require_loaded(client: GatewayClient, live: LiveRoster, *, within_s: float = LOADING_S) -> None:
    """Wait until the gateway has loaded its present config; only for releases whose agents.delete would undo
    changes that are not loaded. Raises RosterUnknownError after ``within_s`` seconds, and GatewayError."""
    if not live.dialect.removes_from_memory:
        return
    until = time.monotonic() + within_s
    while True:
        answer = client.query("agents.list")
        implied = {IMPLICIT_AGENT, *(str(answer.value.get(key)) for key in ("defaultId", "mainKey"))}
        running = {canonical_id(agent.text("id")) for agent in answer.records("agents")}
        apart = sorted((running ^ live.present) - implied)
        if not apart:
            return
        if time.monotonic() > until or shutting_down.wait(_LOADING_PAUSE_S):
            raise RosterUnknownError(
                f"The gateway has not loaded its openclaw.json as it is now ({', '.join(apart[:_MOST_NAMED])}"
                f" differ{'s' * (len(apart) == 1)}), and its agents.delete would undo what was saved there:"
                " restart the gateway, and run `provisioner retry`."
            )


def what_is_left(
    live: LiveRoster, answer: Mapping[str, Any], openclaw_id: str, workspace: str | None
) -> Iterator[str]:
    """Yield warnings about what agents.delete left behind, and about what it dropped besides the agent.

    ``answer``: the gateway's; up to 2026.7 it says nothing about files, from 2026.8 on it lists what was
    ``removed``, what ``failed``, and whether the purge of the sessions failed. ``live``: the roster before
    the removal; ``workspace``: the folder that the gateway was asked to delete, or None.
    """
    failed = [item for item in items(answer.get("failed")) if isinstance(item, Mapping)]
    for item in failed:
        yield (
            f"The gateway could not remove {item.get('path')} of {openclaw_id} ({item.get('reason')}):"
            " remove it there by hand, it may hold the agent's token."
        )
    if answer.get("purgeFailed"):
        yield (
            f"The gateway could not purge the sessions of {openclaw_id} and kept its files: correct the fault"
            " of its storage that its log names, and delete what is left there by hand."
        )
    elif workspace is not None and isinstance(answer.get("removed"), list):
        gone = [item.get("path") for item in items(answer["removed"]) if isinstance(item, Mapping)]
        reported = [str(path) for path in [*gone, *(item.get("path") for item in failed)]]
        if not any(same_folder(path, workspace) for path in reported):
            yield (
                f"The gateway left the workspace of {openclaw_id} where it is: delete {workspace} there by"
                " hand, it may hold the agent's token."
            )
    elif workspace is not None and live.dialect.leaves_distant_folders:
        yield from _too_far(home_folder(live), openclaw_id, workspace)
    bindings = answer.get("removedBindings")
    if isinstance(bindings, int) and not isinstance(bindings, bool) and bindings > 0:
        yield f"With {openclaw_id} the gateway dropped {bindings} of its owner's bindings that named it."
    for block, others in live.defaults_naming(openclaw_id):
        had = f", and with it {', '.join(others)}" if others else ""
        yield (
            f"With {openclaw_id} the gateway dropped {block} of its openclaw.json, which named it{had}: write"
            " that anew there if other agents need it."
        )


def is_gone(client: GatewayClient, live: LiveRoster, openclaw_id: str) -> bool:
    """Whether the entry is gone although the gateway answered that it could not remove it.

    ``live``: the roster before the removal. The newest releases show what they wrote only a moment later, so
    the roster is read up to three times; a worker that is stopping reads it once and then trusts the answer.
    Raises GatewayError, RosterUnknownError.
    """
    for number in range(_LOOKS):
        if number and shutting_down.wait(_LOOK_PAUSE_S):
            break
        seen = read_roster(
            live.dialect,
            lambda: client.call("config.get"),
            lambda: client.call("agents.list"),
            shutting_down.wait,
        )
        if openclaw_id not in seen.present:
            return True
    return False


def half_removed(openclaw_id: str, workspace: str | None, error: GatewayError) -> str:
    """The warning that the gateway removed the entry and then failed, as 2026.9.6 does if the entry's key is
    spelled differently from the id. ``workspace``: the folder that it was asked to delete, or None."""
    files = f"; delete {workspace} there by hand, it may hold the agent's token" if workspace else ""
    return f"The entry of {openclaw_id} is gone, but its removal did not come to its end ({error}){files}."


def _too_far(home: str | None, openclaw_id: str, workspace: str) -> Iterator[str]:
    """The sentence about a workspace in a place where the release deletes no folders.

    The release does not report that it left the folder: it answers ok for any.
    """
    if home is not None and is_inside(workspace, home):
        return
    if home is None or is_inside(workspace, "/tmp"):
        yield (
            "This OpenClaw release removes only folders in the home or temporary folder of its own account,"
            f" and does not say what it left: if the workspace of {openclaw_id}, {workspace}, is still there,"
            " delete it by hand, it may hold the agent's token."
        )
        return
    yield (
        f"The gateway left the workspace of {openclaw_id} where it is, because this OpenClaw release removes"
        f" no folder outside {home}: delete {workspace} there by hand, it may hold the agent's token."
    )


def workspace_of(live: LiveRoster, openclaw_id: str) -> str | None:
    """The workspace of an entry as the gateway resolves it, or None if its config names none."""
    return folders_of(live)[openclaw_id].workspace
