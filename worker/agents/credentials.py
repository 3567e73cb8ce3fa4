"""The agent's token: found live, checked, or made anew in two phases (rules.md 23-28)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal
from uuid import UUID

from sqlalchemy import Connection, text

from worker.agents.context import Work
from worker.errors import PermanentError, TransientError
from worker.jobs.states import ReasonCode
from worker.masking import remember
from worker.records.agent_repository import AgentRecord
from worker.workspace.credentials import find_token, verify_token

Origin = Literal["reused", "minted", "rotated"]


class TokenRaceError(TransientError):
    """The agent's hash was changed by somebody else while we re-keyed."""


class NoTokenError(PermanentError):
    """The agent's workspace holds no token that is the agent's, and the request does not ask for another."""

    reason_code = ReasonCode.NO_TOKEN


@dataclass(frozen=True)
class Token:
    """A token in hand. ``hash``: what agents.agent_token_hash is or will be, None for a token that nobody
    checked (rules.md 25). ``settle``: what is to be done in the database once it stands in the workspace:
    commit its pending hash (begun from ``replaces``), drop another's, or nothing."""

    plain: str
    hash: str | None
    origin: Origin
    settle: Literal["commit", "drop", "nothing"] = "nothing"
    replaces: str | None = None

    def __repr__(self) -> str:
        return f"<Token {self.origin}>"


@dataclass(frozen=True)
class Choice:
    """``keep``: the token that the workspace is to hold, None to mint another in the place of ``outgoing``,
    the live one, if it is the agent's."""

    keep: Token | None
    outgoing: Token | None = None


def choose_token(work: Work, content: str | None, *, trusted: bool) -> Choice:
    """Keep the live token where it is the agent's, or mint another.

    ``content``: the live file that carries it. ``trusted``: it is as we left it, and its token was verified
    against the hash that still stands, so PBKDF2 (0.1 s of CPU) is spared. A rotation that this job has
    already brought into the workspace is not begun again. Raises NoTokenError (rules.md 25, 26).
    """
    record = work.record
    live = find_token(content, section=work.dialect.credentials_in == "AGENTS.md") if content else None
    remember(live)
    known = None if live is None else _recognise(record, live, trusted=trusted)
    mine = record.credential_job_id == work.held.job_id
    arrived = known is not None and known.settle != "drop"
    if work.option("rotate_tokens"):
        return Choice(replace(known, origin="rotated")) if known and mine and arrived else Choice(None, known)
    if known is not None and mine and arrived and work.verb.mints:  # by an earlier try of this job
        return Choice(replace(known, origin="minted" if known.replaces is None else "rotated"))
    if known is not None or work.verb.mints:
        return Choice(known)
    if live is not None and record.token_hash is None:
        return Choice(Token(live, None, "reused"))
    what = (
        f"The token in its {work.dialect.credentials_in} is not the agent's" if live else "It holds no token"
    )
    raise NoTokenError(f"{what}: run again with rotate_tokens to give it a new one.")


def _recognise(record: AgentRecord, live: str, *, trusted: bool) -> Token | None:
    """The live token, where a hash of ours verifies it. One that matches the pending hash of a run that
    died is committed; one that matches the agent's own drops what is pending (rules.md 27)."""
    if record.token_hash is not None and (trusted or verify_token(live, record.token_hash)):
        settle: Literal["drop", "nothing"] = "drop" if record.pending_hash is not None else "nothing"
        return Token(live, record.token_hash, "reused", settle)
    # Where the agent's hash is not the one any more that it was to replace, its token is nobody's.
    current = record.replaces_hash == record.token_hash
    if record.pending_hash is not None and current and verify_token(live, record.pending_hash):
        return Token(live, record.pending_hash, "reused", "commit", record.replaces_hash)
    return None


def new_token(work: Work, outgoing: Token | None) -> Token:
    """Mint a token and store its hash as pending: phase one of a re-keying.

    Where the ``outgoing`` one came into the workspace by a run that died, its own pending hash becomes the
    agent's first: it must be known for as long as it stands there.
    """
    minted = work.services.mint.take()
    remember(minted.plain)
    replaces = work.record.token_hash
    with work.services.engine.begin() as connection:
        work.advance(connection, "credentials")
        if outgoing is not None and outgoing.settle == "commit" and _commit(connection, work, outgoing):
            replaces = outgoing.hash
        connection.execute(
            _STORE_PENDING,
            {
                "agent_id": work.agent_id,
                "pending": minted.hash,
                "replaces": replaces,
                "job_id": work.held.job_id,
            },
        )
    return Token(minted.plain, minted.hash, "minted" if replaces is None else "rotated", "commit", replaces)


def commit(connection: Connection, work: Work, token: Token) -> None:
    """The token stands in the workspace: make its hash the agent's where it is still pending, and note that
    it was verified. Raises TokenRaceError where somebody changed the agent's hash meanwhile."""
    if token.settle == "commit":
        if not _commit(connection, work, token):
            raise TokenRaceError(
                f"The token hash of agent {work.record.agent.name!r} was changed by somebody else meanwhile."
            )
        work.rekeyed = True
        return
    if token.settle == "drop":
        connection.execute(_DROP_PENDING, {"agent_id": work.agent_id})
    if token.hash is not None and work.record.verified_hash != token.hash:
        connection.execute(_NOTE_VERIFIED, {"agent_id": work.agent_id, "hash": token.hash})


def _commit(connection: Connection, work: Work, token: Token) -> bool:
    """Make the pending hash the agent's, if that is still the one it was to replace, and keep whose doing
    that was."""
    parameters = {
        "agent_id": work.agent_id,
        "pending": token.hash,
        "replaces": token.replaces,
        "job_id": work.held.job_id,
    }
    return connection.execute(_COMMIT, parameters).rowcount == 1


def have_succeeded(connection: Connection, gateway_id: UUID, agents: Sequence[UUID]) -> None:
    """Keep, for good, that jobs of ours succeeded for the agents on this gateway (rules.md 16)."""
    connection.execute(_SUCCEEDED, {"agents": list(agents), "gateway_id": gateway_id})


_STORE_PENDING = text("""
    INSERT INTO provisioner.agent_credentials (agent_id, pending_hash, replaces_hash, job_id, updated_at)
    VALUES (:agent_id, :pending, :replaces, :job_id, now())
    ON CONFLICT (agent_id) DO UPDATE
    SET pending_hash = excluded.pending_hash, replaces_hash = excluded.replaces_hash,
        job_id = excluded.job_id, updated_at = now()
""")
_DROP_PENDING = text("""
    UPDATE provisioner.agent_credentials SET pending_hash = NULL, replaces_hash = NULL, updated_at = now()
    WHERE agent_id = :agent_id
""")
_COMMIT = text("""
    WITH keyed AS (
        UPDATE agents SET agent_token_hash = :pending
        WHERE id = :agent_id AND agent_token_hash IS NOT DISTINCT FROM :replaces
        RETURNING id
    )
    UPDATE provisioner.agent_credentials
    SET verified_hash = :pending, pending_hash = NULL, replaces_hash = NULL, job_id = :job_id,
        updated_at = now()
    FROM keyed WHERE agent_id = keyed.id AND pending_hash = :pending
""")
_NOTE_VERIFIED = text("""
    INSERT INTO provisioner.agent_credentials (agent_id, verified_hash, updated_at)
    VALUES (:agent_id, :hash, now())
    ON CONFLICT (agent_id) DO UPDATE SET verified_hash = excluded.verified_hash, updated_at = now()
""")
_SUCCEEDED = text("""
    INSERT INTO provisioner.agent_credentials (agent_id, gateway_id, updated_at)
    SELECT agent_id, :gateway_id, now() FROM unnest(CAST(:agents AS uuid[])) AS ended (agent_id)
    ON CONFLICT (agent_id) DO UPDATE SET gateway_id = excluded.gateway_id, updated_at = now()
    WHERE agent_credentials.gateway_id IS DISTINCT FROM excluded.gateway_id
""")
