"""Which entries of a gateway's roster no agent of ours should have, and what is to be done with each
(rules.md 53)."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Connection, text

from worker.cli.console import argument, counted, named
from worker.cli.doctor.fleet import Fleet
from worker.gateway.agent_ids import IMPLICIT_AGENT
from worker.gateway.answers import Answer
from worker.gateway.connection import GatewayConnection
from worker.gateway.dialect import Dialect
from worker.gateway.errors import GatewayError
from worker.gateway.roster_reading import LiveRoster
from worker.workspace.identity import derived_id
from worker.workspace.tokens import find_token, find_value, verify_token

Kind = Literal["entry", "row", "elsewhere", "not ours", "session"]
_MOST_SESSIONS = 2_000
_MOST_VERIFIED = 20
"""How many agents' tokens are compared with their rows, which takes 0.1 s of CPU each."""
_SLACK_S = 60.0
"""Seconds by which a gateway's clock may be ahead of the database's."""


def without_agent(present: Collection[str], fleet: Fleet) -> list[str]:
    """The OpenClaw ids in a roster that no agent of the gateway has."""
    return sorted(set(present) - {record.openclaw_id for record in fleet.records} - fleet.refused_ids)


def by_hand(key: str) -> str:
    """How an entry is taken away without us."""
    return f"run `openclaw agents delete {key}` on this gateway's machine"


def of_another_place(key: str, fleet: Fleet) -> str | None:
    """What is to be done with an entry whose agent has a row, but lives elsewhere by now; None if it has no
    row."""
    made = derived_id(key)
    own = fleet.names.get(made.key) if made is not None and made.role == "mc" else None
    other = fleet.elsewhere.get(key)
    if other in fleet.twins:
        return (
            f"{key} is an agent of gateway {other}, whose row has the same URL: it lives here, so leave it."
            " Keep one row for each gateway"
        )
    if other is not None:
        there = "provision it there, which takes it off here, or " if key in fleet.former else ""
        return (
            f"{key} belongs to gateway {other} now. Unless that is this same gateway under another row,"
            f" {there}{by_hand(key)}"
        )
    if key in fleet.former or own is not None:
        name = fleet.former.get(key) or own or ""
        return f"{key} is where agent {name!r} was before: `provisioner provision {argument(name)}` moves it"
    return None


@dataclass(frozen=True)
class Made:
    """What is on record of an id that this deployment made on the gateway and whose agent has no row.

    ``verified_hash``: of the token that the agent had; ``newest``: when something of it was recorded last;
    ``lives``: the place is live, so that nobody has seen the agent gone from it; ``elsewhere``: the agent has
    live places besides.
    """

    agent_id: UUID
    verified_hash: str | None
    pending_hash: str | None
    newest: datetime
    lives: bool
    elsewhere: bool


@dataclass(frozen=True)
class Orphan:
    """One thing that is without its other half. ``removable``: `provisioner orphans --remove` takes it."""

    id: str
    kind: Kind
    says: str
    removable: bool = False
    agent_id: UUID | None = None


@dataclass
class Look:
    """What was found on a gateway. ``older``: why the database may be older than what stands on the gateway,
    in which case nothing is removed; ``notes``: what could not be looked at."""

    orphans: list[Orphan] = field(default_factory=list)
    older: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def of(self, openclaw_id: str) -> Orphan | None:
        """The entry of that id, if it is an orphan."""
        entries = (one for one in self.orphans if one.kind not in ("row", "session"))
        return next((one for one in entries if one.id == openclaw_id), None)


def made_here(connection: Connection, gateway_id: UUID) -> dict[str, Made]:
    """By OpenClaw id, what is on record of those that this deployment made on the gateway and whose agents
    have no row any more. An id that was found there and adopted was not made by us."""
    rows = connection.execute(_MADE, {"gateway_id": gateway_id})
    made = {openclaw_id: Made(*values) for openclaw_id, *values in rows}
    # What was seen to be gone may be somebody else's by now, unless its id says that it is ours.
    return {key: one for key, one in made.items() if one.lives or derived_id(key) is not None}


@dataclass(frozen=True)
class _Gateway:
    """A gateway that is being looked at, and what it is called."""

    connection: GatewayConnection
    live: LiveRoster
    name: str
    deadline_s: float

    @property
    def dialect(self) -> Dialect:
        """Its release."""
        return self.live.dialect

    def answer(self, method: str, payload: Mapping[str, Any]) -> Answer:
        """What it answered to a call, to be read by name and type."""
        return Answer(payload, f"the gateway at {self.connection.address.url}", method)

    def carrier(self, openclaw_id: str) -> tuple[str, float | None] | None:
        """The text of the file that carries an agent's token, and when it was changed last, in seconds since
        1970; None if there is none, or it cannot be read."""
        try:
            name = {"agentId": openclaw_id, "name": self.dialect.credentials_in}
            payload = self.connection.call("agents.files.get", name, deadline_s=self.deadline_s)
            file = self.answer("agents.files.get", payload).record("file")
            if file.flag("missing"):
                return None
            at_ms = file.timestamp_ms("updatedAtMs")
            return file.text("content"), at_ms / 1000 if at_ms is not None else None
        except GatewayError:
            return None

    @property
    def section(self) -> bool:
        """Whether the token stands in a section of that file."""
        return self.dialect.credentials_in == "AGENTS.md"


def look(
    connection: GatewayConnection,
    live: LiveRoster,
    fleet: Fleet,
    made: Mapping[str, Made],
    name: str,
    base_url: str,
    deadline_s: float,
) -> Look:
    """Look for what is without its other half, and whether the database is as new as the gateway. ``name``:
    the gateway's; ``base_url``: ours, empty if it is not known here. Raises GatewayError."""
    gateway = _Gateway(connection, live, name, deadline_s)
    found = Look()
    for key in without_agent(live.present, fleet):
        found.orphans.append(_entry(key, gateway, fleet, made, found))
    for record in fleet.records:
        if record.openclaw_id not in live.known:
            cure = f"`provisioner provision {argument(record.shown_name)}`"
            says = f"agent {record.shown_name!r} has a row and no entry: {cure} makes it"
            found.orphans.append(Orphan(record.openclaw_id, "row", says))
    found.orphans += _sessions(gateway, made, found)
    found.notes.append("No release shows the folders of agents that have no entry any more.")
    if any(one.removable for one in found.orphans):
        found.older += [*_unknown_of_ours(gateway, fleet, made, base_url), *_unlike_rows(gateway, fleet)]
    return found


def _entry(key: str, gateway: _Gateway, fleet: Fleet, made: Mapping[str, Made], found: Look) -> Orphan:
    says = of_another_place(key, fleet)
    if says is not None:
        return Orphan(key, "elsewhere", says)
    ours = made.get(key)
    if ours is None:
        what = "the gateway's own agent" if key == IMPLICIT_AGENT else "on no record of this deployment"
        says = f"{key} is not ours: it is {what}, and another deployment may care for it"
        return Orphan(key, "not ours", says)
    if ours.elsewhere:
        cure = f"`provisioner delete {ours.agent_id} --gateway {argument(gateway.name)}` clears all of them"
        says = f"{key} is one of several places that an agent without a row is still on record for: {cure}"
        return Orphan(key, "elsewhere", says)
    doubt = _doubt(key, gateway, ours)
    if doubt is not None:
        found.older.append(doubt)
    cure = (
        f"`provisioner orphans {argument(gateway.name)} --remove {key}` takes it away, after a bundle of it"
    )
    says = f"{key} was made by this deployment, and its agent has no row any more: {cure}"
    return Orphan(key, "entry", says, removable=True, agent_id=ours.agent_id)


def _doubt(key: str, gateway: _Gateway, ours: Made) -> str | None:
    """Why something may have happened to an agent that the database does not know of."""
    carrier = gateway.carrier(key)
    if carrier is None:
        return None
    content, changed_s = carrier
    token = find_token(content, section=gateway.section)
    hashes = [one for one in (ours.verified_hash, ours.pending_hash) if one is not None]
    if token is not None and hashes:
        if any(verify_token(token, one) for one in hashes):
            return None
        return f"the token of {key} is another one than this database knew last"
    if changed_s is not None and changed_s > ours.newest.timestamp() + _SLACK_S:
        when = datetime.fromtimestamp(changed_s, UTC)
        written = f"{gateway.dialect.credentials_in} of {key} was written on {when:%Y-%m-%d %H:%M} UTC"
        return f"{written}, after all that this database knows of it"
    return None


def _unknown_of_ours(
    gateway: _Gateway, fleet: Fleet, made: Mapping[str, Made], base_url: str
) -> Iterator[str]:
    """Agents that this deployment must have made after what the database holds: their files name our
    BASE_URL, and no row and no record names them."""
    strangers = [
        key
        for key in without_agent(gateway.live.present, fleet)
        if derived_id(key) is not None and key not in made and of_another_place(key, fleet) is None
    ]
    if not strangers:
        return
    ours = {base_url.rstrip("/")} - {""}
    for record in fleet.records if not ours else ():
        carrier = gateway.carrier(record.openclaw_id) if record.openclaw_id in gateway.live.present else None
        if carrier is not None and (url := find_value(carrier[0], "BASE_URL", section=gateway.section)):
            ours.add(url.rstrip("/"))
            break
    if not ours:
        yield (
            f"whose {named(strangers)} {'are' if len(strangers) > 1 else 'is'} cannot be told without our"
            " BASE_URL: set it as the workers have it"
        )
        return
    for key in strangers:
        carrier = gateway.carrier(key)
        url = find_value(carrier[0], "BASE_URL", section=gateway.section) if carrier is not None else None
        if url is not None and url.rstrip("/") in ours:
            yield f"{key} calls this Mission Control ({url}), and this database has never heard of it"


def _unlike_rows(gateway: _Gateway, fleet: Fleet) -> Iterator[str]:
    """Agents whose token on the gateway is not the one that their row verifies: if it was changed by us, the
    row is older than that."""
    settled = [
        record
        for record in fleet.records
        if record.token_hash is not None and record.status not in ("provisioning", "updating", "deleting")
    ]
    for record in settled[-_MOST_VERIFIED:]:
        carrier = gateway.carrier(record.openclaw_id) if record.openclaw_id in gateway.live.present else None
        token = find_token(carrier[0], section=gateway.section) if carrier is not None else None
        if token is not None and not any(
            verify_token(token, one) for one in (record.token_hash, record.pending_hash)
        ):
            yield f"the token of agent {record.shown_name!r} is not the one that its row verifies"


def _sessions(gateway: _Gateway, made: Mapping[str, Made], found: Look) -> list[Orphan]:
    """The sessions of agents that are not in the roster, as far as the release shows them."""
    ids: dict[str, int] = {}
    try:
        for key in _session_keys(gateway):
            parts = key.split(":")
            if parts[0] == "agent" and len(parts) > 2 and parts[1] not in gateway.live.known:
                ids[parts[1]] = ids.get(parts[1], 0) + 1
    except GatewayError as error:
        found.notes.append(f"Its sessions could not be looked at: {error}")
        return []
    return [
        Orphan(
            key,
            "session",
            f"{counted(count, 'session')} of {key}, which has no entry any more,"
            f" {'that this deployment made' if key in made else 'not ours'}:"
            f" delete the folder agents/{key} in this gateway's state folder while it is stopped",
        )
        for key, count in sorted(ids.items())
    ]


def _session_keys(gateway: _Gateway) -> Iterator[str]:
    """Raises GatewayError."""
    offset, until = 0, time.monotonic() + gateway.deadline_s
    while offset < _MOST_SESSIONS and time.monotonic() < until:
        page = {"offset": offset} if offset else {}
        payload = gateway.connection.call("sessions.list", page, deadline_s=gateway.deadline_s)
        answer = gateway.answer("sessions.list", payload)
        sessions = answer.records("sessions")
        yield from (str(one.value.get("key")) for one in sessions)
        offset += len(sessions)
        if not sessions or answer.value.get("hasMore") is not True:
            return


def refusal(look_at: Look, wanted: Sequence[str], gateway: str) -> str | None:
    """Why what is to be removed cannot be; None if all of it can."""
    for key in wanted:
        orphan = look_at.of(key)
        if orphan is None:
            return (
                f"{key} is no orphan on gateway {gateway!r}, so nothing was removed: see what is, without"
                " --remove."
            )
        if not orphan.removable:
            return f"Nothing was removed, because {key} cannot be from here: {orphan.says}."
    if look_at.older:
        return (
            f"Nothing was removed: this database may be older than gateway {gateway!r}, as after a back-up"
            f" was restored, for {'; '.join(look_at.older)}. Put that right first, or provision or adopt what"
            " is missing."
        )
    return None


_MADE = text("""
    SELECT DISTINCT ON (p.openclaw_id) p.openclaw_id, p.agent_id, c.verified_hash, c.pending_hash,
        greatest(p.since, p.until, c.updated_at, (
            SELECT max(f.applied_at) FROM provisioner.agent_files f WHERE f.agent_id = p.agent_id
        ), (
            SELECT max(coalesce(r.finished_at, r.started_at)) FROM provisioner.job_agents r
            WHERE r.agent_id = p.agent_id
        )) AS newest,
        p.until IS NULL AS lives,
        EXISTS (
            SELECT FROM provisioner.agent_places e
            WHERE e.agent_id = p.agent_id AND e.until IS NULL
              AND (e.gateway_id, e.openclaw_id) <> (p.gateway_id, p.openclaw_id)
        ) AS elsewhere
    FROM provisioner.agent_places p
    LEFT JOIN agents a ON a.id = p.agent_id
    LEFT JOIN provisioner.agent_credentials c ON c.agent_id = p.agent_id
    WHERE p.gateway_id = :gateway_id AND a.id IS NULL AND NOT p.adopted
      AND NOT EXISTS (
          SELECT FROM provisioner.agent_places o
          WHERE (o.gateway_id, o.openclaw_id) = (p.gateway_id, p.openclaw_id)
            AND o.adopted AND o.until IS NULL
      )
    ORDER BY p.openclaw_id, p.until IS NULL DESC, p.id DESC
""")
