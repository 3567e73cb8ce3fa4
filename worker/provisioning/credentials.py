"""The agent's token: found live, checked, or made anew in two phases (behaviour 23-28)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from sqlalchemy import Connection, text

from worker.errors import TransientError
from worker.provisioning.work import Work
from worker.workspace.credentials import find_token, hash_token, mint_token, verify_token

Origin = Literal["reused", "minted", "rotated"]


class TokenRaceError(TransientError):
    """The agent's hash was changed by somebody else while we re-keyed."""


@dataclass(frozen=True)
class Token:
    """A token in hand. ``hash``: what agents.agent_token_hash is, or will be once it is committed;
    ``pending``: it still has to be."""

    plain: str
    hash: str
    origin: Origin
    pending: bool

    def __repr__(self) -> str:
        return f"<Token {self.origin}>"


def live_token(work: Work, content: str | None, *, trusted: bool) -> Token | None:
    """The token in the live carrier, if it is the agent's.

    ``trusted``: the carrier is as we left it, and its token was verified against the hash that still stands,
    so PBKDF2 (0.1 s of CPU) is spared. A token that matches the pending hash of an earlier run is committed
    here and now; one that matches the agent's own drops the pending hash (behaviour 27).
    """
    record = work.record
    token = find_token(content, section=work.dialect.credentials_in == "AGENTS.md") if content else None
    if token is None:
        return None
    if record.token_hash is not None and (trusted or verify_token(token, record.token_hash)):
        if record.pending_hash is not None:
            with work.services.engine.begin() as connection:
                connection.execute(_DROP_PENDING, {"agent_id": work.agent_id})
        return Token(token, record.token_hash, "reused", pending=False)
    if record.pending_hash is not None and verify_token(token, record.pending_hash):
        with work.services.engine.begin() as connection:
            commit_pending(connection, work, record.pending_hash, record.replaces_hash)
        return Token(token, record.pending_hash, "reused", pending=False)
    return None


def new_token(work: Work) -> Token:
    """Mint a token and store its hash as pending: phase one of a re-keying."""
    token = mint_token()
    digest = hash_token(token)
    with work.services.engine.begin() as connection:
        work.advance(connection, "credentials")
        connection.execute(
            _STORE_PENDING,
            {
                "agent_id": work.agent_id,
                "pending": digest,
                "replaces": work.record.token_hash,
                "job_id": work.held.job_id,
            },
        )
    return Token(token, digest, "minted" if work.record.token_hash is None else "rotated", pending=True)


def commit(connection: Connection, work: Work, token: Token) -> None:
    """The token was read back from the workspace: make its hash the agent's, or note that it is still so."""
    if token.pending:
        commit_pending(connection, work, token.hash, work.record.token_hash)
    elif work.record.verified_hash != token.hash:
        connection.execute(_NOTE_VERIFIED, {"agent_id": work.agent_id, "hash": token.hash})


def commit_pending(connection: Connection, work: Work, pending: str, replaces: str | None) -> None:
    """Make the pending hash the agent's, if that is still the one the re-keying began from. Raises
    TokenRaceError."""
    parameters = {"agent_id": work.agent_id, "pending": pending, "replaces": replaces}
    if connection.execute(_COMMIT, parameters).rowcount != 1:
        raise TokenRaceError(
            f"The token hash of agent {work.record.agent.name!r} was changed by somebody else meanwhile."
        )


def has_succeeded_here(connection: Connection, agent_id: UUID, gateway_id: UUID) -> None:
    """Keep, for good, that a job of ours succeeded for the agent on this gateway (behaviour 16)."""
    connection.execute(_SUCCEEDED, {"agent_id": agent_id, "gateway_id": gateway_id})


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
    SET verified_hash = :pending, pending_hash = NULL, replaces_hash = NULL, updated_at = now()
    FROM keyed WHERE agent_id = keyed.id AND pending_hash = :pending
""")
_NOTE_VERIFIED = text("""
    INSERT INTO provisioner.agent_credentials (agent_id, verified_hash, updated_at)
    VALUES (:agent_id, :hash, now())
    ON CONFLICT (agent_id) DO UPDATE SET verified_hash = excluded.verified_hash, updated_at = now()
""")
_SUCCEEDED = text("""
    INSERT INTO provisioner.agent_credentials (agent_id, gateway_id, updated_at)
    VALUES (:agent_id, :gateway_id, now())
    ON CONFLICT (agent_id) DO UPDATE SET gateway_id = excluded.gateway_id, updated_at = now()
    WHERE agent_credentials.gateway_id IS DISTINCT FROM excluded.gateway_id
""")
