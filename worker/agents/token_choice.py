"""Chooses an agent's token: the verified one in its workspace, or a new one in two phases (rules.md 23-28).

Tokens are minted by `worker.workspace.tokens.mint_token`, ahead of time in `worker.runtime.token_pool`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal
from uuid import UUID

from sqlalchemy import Connection, text

from worker.agents.agent_context import AgentContext
from worker.errors import PermanentError, TransientError
from worker.jobs.states import ReasonCode
from worker.masking import remember
from worker.records.agent_repository import AgentRecord
from worker.workspace.tokens import find_token, verify_token

Origin = Literal["reused", "minted", "rotated"]


class NoTokenError(PermanentError):
    """The workspace does not hold the agent's token, and the request does not ask for a new one."""

    reason_code = ReasonCode.NO_TOKEN


@dataclass(frozen=True)
class Token:
    """A plain token, and what has to be stored once the workspace holds the token.

    ``hash``: the present or future agents.agent_token_hash, None for a token that was not verified
    (rules.md 25); ``settle``: whether to commit the token's pending hash in place of the hash ``replaces``,
    to drop the pending hash of another token, or to do nothing.
    """

    plain: str
    hash: str | None
    origin: Origin
    settle: Literal["commit", "drop", "nothing"] = "nothing"
    replaces: str | None = None

    def __repr__(self) -> str:
        return f"<Token {self.origin}>"


@dataclass(frozen=True)
class Choice:
    """Which token the workspace will hold: ``keep``, or a new one if ``keep`` is None. ``outgoing``: the
    verified live token that the new one replaces, None if there is none."""

    keep: Token | None
    outgoing: Token | None = None


def choose_token(context: AgentContext, content: str | None, *, trusted: bool) -> Choice:
    """Decide whether to keep the live token, which is the one in the workspace, or to have a new one minted.

    ``content``: the live text of the file that carries the token; ``trusted``: the file is as we left it and
    its token was verified against the present hash, so PBKDF2 (0.1 s of CPU) is skipped. A token that an
    earlier try of this job wrote into the workspace is not rotated again.

    Raises NoTokenError (rules.md 25, 26).
    """
    record = context.record
    live = find_token(content, section=context.dialect.credentials_in == "AGENTS.md") if content else None
    remember(live)
    known = None if live is None else _recognise(record, live, trusted=trusted)
    mine = record.credential_job_id == context.held.job_id
    arrived = known is not None and known.settle != "drop"
    if context.option("rotate_tokens"):
        return Choice(replace(known, origin="rotated")) if known and mine and arrived else Choice(None, known)
    if known is not None and mine and arrived and context.profile.mints:  # by an earlier try of this job
        return Choice(replace(known, origin="minted" if known.replaces is None else "rotated"))
    if known is not None or context.profile.mints:
        return Choice(known)
    if live is not None and record.token_hash is None:
        return Choice(Token(live, None, "reused"))
    what = (
        f"The token in its {context.dialect.credentials_in} is not the agent's"
        if live
        else "It holds no token"
    )
    raise NoTokenError(f"{what}: run again with rotate_tokens to give it a new one.")


def _recognise(record: AgentRecord, live: str, *, trusted: bool) -> Token | None:
    """The live token if the agent's hash or a pending one verifies it, else None (rules.md 27).

    A match with the pending hash of a job whose worker died commits that hash; a match with the agent's hash
    drops the pending one.
    """
    if record.token_hash is not None and (trusted or verify_token(live, record.token_hash)):
        settle: Literal["drop", "nothing"] = "drop" if record.pending_hash is not None else "nothing"
        return Token(live, record.token_hash, "reused", settle)
    # If the agent's hash is no longer the one that the pending hash replaces, the pending token is void.
    current = record.replaces_hash == record.token_hash
    if record.pending_hash is not None and current and verify_token(live, record.pending_hash):
        return Token(live, record.pending_hash, "reused", "commit", record.replaces_hash)
    return None


def new_token(context: AgentContext, outgoing: Token | None) -> Token:
    """Mint a token and store its hash as pending: the first phase of replacing a token.

    If the hash of the ``outgoing`` token is still pending, because the worker that wrote the token died, it
    is committed first: a token must be valid as long as the workspace holds it.
    """
    minted = context.services.token_pool.take()
    remember(minted.plain)
    replaces = context.record.token_hash
    with context.services.engine.begin() as connection:
        context.advance(connection, "credentials")
        if outgoing is not None and outgoing.settle == "commit" and _commit(connection, context, outgoing):
            replaces = outgoing.hash
        connection.execute(
            _STORE_PENDING,
            {
                "agent_id": context.agent_id,
                "pending": minted.hash,
                "replaces": replaces,
                "job_id": context.held.job_id,
            },
        )
    return Token(minted.plain, minted.hash, "minted" if replaces is None else "rotated", "commit", replaces)


def commit(connection: Connection, context: AgentContext, token: Token) -> None:
    """Carry out ``settle`` of a token that the workspace now holds, and record the hash that it matched.

    Raises TransientError if another program changed the agent's hash meanwhile.
    """
    if token.settle == "commit":
        if not _commit(connection, context, token):
            raise TransientError(
                f"The token hash of agent {context.record.agent.name!r} was changed by somebody else"
                " meanwhile."
            )
        context.rekeyed = True
        return
    if token.settle == "drop":
        connection.execute(_DROP_PENDING, {"agent_id": context.agent_id})
    if token.hash is not None and context.record.verified_hash != token.hash:
        connection.execute(_NOTE_VERIFIED, {"agent_id": context.agent_id, "hash": token.hash})


def _commit(connection: Connection, context: AgentContext, token: Token) -> bool:
    """Make the pending hash the agent's and record the job, if the agent's hash is still ``token.replaces``;
    return whether it was."""
    parameters = {
        "agent_id": context.agent_id,
        "pending": token.hash,
        "replaces": token.replaces,
        "job_id": context.held.job_id,
    }
    return connection.execute(_COMMIT, parameters).rowcount == 1


def record_success(connection: Connection, gateway_id: UUID, agents: Sequence[UUID]) -> None:
    """Record that a job succeeded for these agents on this gateway; pruning keeps that (rules.md 16)."""
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
