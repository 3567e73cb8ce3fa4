"""Intents: rows in which jobs request roster changes, settled by the roster writer (decisions.md D1).

To settle an intent is to mark it as applied or as refused; until then it is open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from uuid import UUID

from sqlalchemy import Connection, bindparam, text

from worker.jobs.messages import Message, roster_writer_message
from worker.jobs.service_time import SERVED_SINCE
from worker.jobs.states import ReasonCode, code_of
from worker.jobs.store.codes import refusal_code
from worker.jobs.store.job_agents import ABOUT_TO_ASK
from worker.masking.columns import MaskedText
from worker.printable import line

ROSTER_RECHECK_S = 60.0
"""Seconds after which a row that waits for the roster writer is due anyway, even if the writer has not
published it."""


@dataclass(frozen=True)
class Intent:
    """An open intent.

    ``present_before``: whether the roster held the agent when the writer first read the roster, None before
    that; ``only_present``: change the agent's entry if there is one, but do not add it; ``entry_alone``: the
    intent's job only writes the entry; ``age_s``: seconds since the intent was recorded, or since the present
    stretch of uninterrupted service began if that was later (`worker.jobs.service_time`).
    """

    id: int
    agent_id: UUID
    job_id: UUID
    change: str
    openclaw_id: str
    delete_files: bool
    only_present: bool
    present_before: bool | None
    entry_alone: bool
    age_s: float


@dataclass(frozen=True)
class IntentState:
    """The state of an intent: applied, refused with the sentence in ``error``, or open.

    ``reason_code``: why it was refused, for programs; ``age_s``: as in `Intent`; ``last_error``: the last
    recorded error of its gateway.
    """

    gateway_id: UUID
    openclaw_id: str
    applied: bool
    error: str | None
    reason_code: str | None
    warning: str | None
    present_before: bool | None
    gateway_name: str | None
    id: int
    age_s: float
    last_error: str | None

    @property
    def open(self) -> bool:
        """Whether the intent is still open."""
        return not self.applied and self.error is None


@dataclass(frozen=True)
class Refusal:
    """Why a roster change is not made: a sentence for the job that requested it, and a code for programs."""

    sentence: str
    code: ReasonCode

    @classmethod
    def by(cls, error: Exception) -> Refusal:
        """The refusal with the sentence and code of ``error``."""
        return cls(str(error), code_of(error))


@dataclass(frozen=True)
class RosterChange:
    """A change that a job requests for an agent's roster entry.

    ``change``: ``reconcile`` (make the entry match the agent's row) or ``remove``; ``delete_files``: a
    removal deletes the workspace too; ``only_present``: change the entry if there is one, but do not add it.
    """

    agent_id: UUID
    openclaw_id: str
    change: str = "reconcile"
    delete_files: bool = True
    only_present: bool = False


_RECORD = text("""
    INSERT INTO provisioner.roster_intents
        (gateway_id, job_id, agent_id, change, openclaw_id, delete_files, only_present)
    VALUES (:gateway_id, :job_id, :agent_id, :change, :openclaw_id, :delete_files, :only_present)
    ON CONFLICT DO NOTHING
""")
_NEED_WRITER = text("""
    INSERT INTO provisioner.gateway_states AS s (gateway_id, writer_queued_at)
    SELECT :gateway_id, now() WHERE NOT EXISTS (
        SELECT FROM provisioner.gateway_states WHERE gateway_id = :gateway_id AND writer_queued_at IS NOT NULL
    )
    ON CONFLICT (gateway_id) DO UPDATE SET writer_queued_at = now() WHERE s.writer_queued_at IS NULL
    RETURNING gateway_id
""")


def record_intents(
    connection: Connection, gateway_id: UUID, job_id: UUID, *changes: RosterChange
) -> list[Message]:
    """Record the changes that a job requests for one gateway's roster.

    The caller parks the job's rows in the same transaction. Returns the messages for the caller to send after
    the commit: one for the gateway's roster writer, unless one is already on its way.
    """
    rows = [{"gateway_id": gateway_id, "job_id": job_id, **asdict(change)} for change in changes]
    if not rows:
        return []
    connection.execute(_RECORD, rows)
    needed = connection.execute(_NEED_WRITER, {"gateway_id": gateway_id}).one_or_none()
    return [roster_writer_message(gateway_id)] if needed else []


_AGE = f"extract(epoch FROM now() - greatest(i.created_at, {SERVED_SINCE}))"
_OPEN = text(f"""
    SELECT id, agent_id, job_id, change, openclaw_id, delete_files, only_present, present_before,
        EXISTS (
            SELECT FROM provisioner.jobs j WHERE j.id = job_id AND j.kind = 'sync_heartbeats'
        ) AS entry_alone,
        {_AGE}::float AS age_s
    FROM provisioner.roster_intents i
    WHERE gateway_id = :gateway_id AND applied_at IS NULL AND error IS NULL ORDER BY id
""")


def open_intents(connection: Connection, gateway_id: UUID) -> list[Intent]:
    """The open intents of the gateway, oldest first."""
    return [Intent(**row._mapping) for row in connection.execute(_OPEN, {"gateway_id": gateway_id})]


_ARRIVALS = text(f"""
    SELECT (
        SELECT max(id) FROM provisioner.roster_intents
        WHERE gateway_id = :gateway_id AND applied_at IS NULL AND error IS NULL
    ) AS newest, {ABOUT_TO_ASK} AS asking
""")


def arrivals(connection: Connection, gateway_id: UUID) -> tuple[int | None, bool]:
    """The id of the gateway's newest open intent, None if there is none, and whether an agent's row that is
    being executed may soon record another."""
    row = connection.execute(_ARRIVALS, {"gateway_id": gateway_id}).one()
    return row.newest, row.asking


_SETTLED = text(f"""
    SELECT i.gateway_id, openclaw_id, applied_at IS NOT NULL AS applied, error, warning, present_before,
        {refusal_code("i")} AS reason_code,
        g.name AS gateway_name, i.id, {_AGE}::float AS age_s,
        s.last_error
    FROM provisioner.roster_intents i LEFT JOIN gateways g ON g.id = i.gateway_id
    LEFT JOIN provisioner.gateway_states s ON s.gateway_id = i.gateway_id
    WHERE job_id = :job_id AND agent_id = :agent_id AND change = :change
    ORDER BY i.id FOR UPDATE OF i
""")


def intent_states(
    connection: Connection, job_id: UUID, agent_id: UUID, change: str, budget_s: float = float("inf")
) -> list[IntentState]:
    """Read the job's intents for the agent with this ``change``, oldest first, and lock them.

    Because of the lock, a row that parks to wait for an open intent is parked before the writer can settle
    that intent. Intents that have been open for ``budget_s`` seconds are refused.
    """
    parameters = {"job_id": job_id, "agent_id": agent_id, "change": change}
    states = [IntentState(**row._mapping) for row in connection.execute(_SETTLED, parameters)]
    overdue = {i.id: not_in_time(budget_s, i.last_error) for i in states if i.open and i.age_s >= budget_s}
    refuse_intents(connection, overdue)
    return [_refused(state, overdue[state.id]) if state.id in overdue else state for state in states]


def _refused(state: IntentState, refusal: Refusal) -> IntentState:
    return replace(state, error=refusal.sentence, reason_code=refusal.code)


def not_in_time(budget_s: float, last_error: str | None) -> Refusal:
    """The refusal of an intent that the writer did not settle in time."""
    why = f" Last error: {last_error}" if last_error else ""
    sentence = f"The roster was not written within {budget_s:g} seconds.{why}"
    return Refusal(sentence, ReasonCode.RETRIES_EXHAUSTED)


_OVERDUE = text(f"""
    UPDATE provisioner.roster_intents i
    SET error = :sentence || coalesce(' Last error: ' || (
        SELECT s.last_error FROM provisioner.gateway_states s WHERE s.gateway_id = i.gateway_id), ''),
        reason_code = :code
    WHERE job_id = :job_id AND applied_at IS NULL AND error IS NULL
      AND {_AGE} >= :budget_s
""")


def give_up_overdue(connection: Connection, job_id: UUID, budget_s: float) -> None:
    """Refuse the job's intents that have been open for ``budget_s`` seconds."""
    refusal = not_in_time(budget_s, None)
    said = {"sentence": refusal.sentence, "code": refusal.code}
    connection.execute(_OVERDUE, {"job_id": job_id, "budget_s": budget_s, **said})


def recheck_in_s(states: Sequence[IntentState], budget_s: float) -> float:
    """Seconds until a row that waits for open intents is due anyway: ROSTER_RECHECK_S, or less if an intent's
    ``budget_s`` ends earlier."""
    left_s = [budget_s - state.age_s for state in states if state.open]
    return max(0.1, min([ROSTER_RECHECK_S, *left_s]))


_NOTE_PRESENT = text("""
    UPDATE provisioner.roster_intents SET present_before = openclaw_id = ANY(:present)
    WHERE id = ANY(:ids) AND present_before IS NULL
""")
_APPLY = text("UPDATE provisioner.roster_intents SET applied_at = now() WHERE id = ANY(:ids)")
_WARN = text("""
    UPDATE provisioner.roster_intents SET warning = concat_ws(' ', warning, CAST(:warning AS text))
    WHERE id = :id AND position(CAST(:warning AS text) IN coalesce(warning, '')) = 0
""").bindparams(bindparam("warning", type_=MaskedText))
_REFUSE = text("""
    UPDATE provisioner.roster_intents i SET error = refused.sentence, reason_code = refused.code
    FROM unnest(CAST(:ids AS bigint[]), CAST(:sentences AS text[]), CAST(:codes AS text[]))
        AS refused (id, sentence, code)
    WHERE i.id = refused.id AND i.applied_at IS NULL
""").bindparams(bindparam("sentences", type_=MaskedText))


def note_present(connection: Connection, intents: list[int], present: frozenset[str]) -> None:
    """Record for each intent, unless it is recorded already, whether the roster held its agent before our
    first change (rules.md 16). ``present``: the ids in the roster."""
    connection.execute(_NOTE_PRESENT, {"ids": intents, "present": list(present)})


_SKIP_REMOVAL = text("""
    UPDATE provisioner.roster_intents SET present_before = false, warning = :warning WHERE id = :id
""").bindparams(bindparam("warning", type_=MaskedText))


def skip_removal(connection: Connection, intent: int, warning: str) -> None:
    """Record that a removal is not made, with the warning that says why; the agent counts as not present."""
    connection.execute(_SKIP_REMOVAL, {"id": intent, "warning": warning})


def add_warning(connection: Connection, intent: int, warning: str) -> None:
    """Add a warning for the intent's job, unless the intent already has it."""
    connection.execute(_WARN, {"id": intent, "warning": line(warning)})


def apply_intents(connection: Connection, intents: list[int]) -> None:
    """Mark the intents as applied."""
    connection.execute(_APPLY, {"ids": intents})


def refuse_intents(connection: Connection, refused: Mapping[int, Refusal]) -> None:
    """Refuse intents. ``refused``: by intent id, the sentence and code to store in the intent."""
    if refused:
        sentences = [line(refusal.sentence) for refusal in refused.values()]
        codes = [refusal.code for refusal in refused.values()]
        connection.execute(_REFUSE, {"ids": list(refused), "sentences": sentences, "codes": codes})
