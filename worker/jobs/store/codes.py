"""SQL expressions for a row's codes and counts that also understand rows of workers before v0.3.0.

Such workers write no codes and count crashes under another name. They run beside this version during an
upgrade, so a row may pass from one version to the other and back. Only this module reads what they write, and
only until the next release.
"""

from __future__ import annotations

from worker.jobs.states import WAITS, AgentOutcome, ReasonCode

_OLDER_WAITS = (
    ("waiting for the roster writer%", ReasonCode.WAITING_FOR_ROSTER),
    ("waiting until the other agents have their files%", ReasonCode.WAITING_FOR_OTHER_AGENTS),
    ("waiting for another job on this agent", ReasonCode.WAITING_FOR_AGENT),
    ("waiting for the gateway to restart%", ReasonCode.WAITING_FOR_RESTART),
    ("this worker is stopping%", ReasonCode.WORKER_STOPPING),
    ("waiting for the database%", ReasonCode.WAITING_FOR_DATABASE),
    ("being woken", ReasonCode.BEING_WOKEN),
    ("gateway % is down: %", ReasonCode.WAITING_FOR_GATEWAY),
    ("% takes % only %: wait %", ReasonCode.RATE_LIMITED),
    ("% takes no more %: wait %", ReasonCode.RATE_LIMITED),
    ("% locks our address out for %", ReasonCode.RATE_LIMITED),
)
_OLDER_ENDS = (
    ("Cancelled on request%", ReasonCode.CANCELLED),
    ("It was deleted meanwhile.", ReasonCode.AGENT_DELETED),
    ("Agent % was put on gateway % meanwhile: ask again.", ReasonCode.AGENT_MOVED),
    ("The gateway was unreachable for %", ReasonCode.GATEWAY_UNREACHABLE),
    ("Given up after % seconds: %", ReasonCode.RETRIES_EXHAUSTED),
    ("Given up: % workers died while at work on it, %", ReasonCode.WORKER_CRASHES),
    ("Internal error (%", ReasonCode.INTERNAL_ERROR),
    ("The IDENTITY.md override%", ReasonCode.BROKEN_IDENTITY_TEMPLATE),
    ("The SOUL.md override%", ReasonCode.BROKEN_SOUL_TEMPLATE),
    ("A config write would rewrite%", ReasonCode.REWRITE_REFUSED),
    ("It is not in its gateway's roster, so it holds no token there: %", ReasonCode.NOT_REGISTERED),
    ("%rotate_tokens%", ReasonCode.NO_TOKEN),
    ("%gateway%", ReasonCode.GATEWAY_REFUSED),
    ("Gateway %", ReasonCode.GATEWAY_REFUSED),
)


def reason_code(row: str, sentence: str = "reason") -> str:
    """SQL: the `ReasonCode` of the row with the alias ``row``, null if there is none. ``sentence``: the
    column with the sentence for people.

    An older worker parks or ends a row without changing its code. So a stored code is ignored if the row has
    no sentence, if the row has ended and the code is a wait's, or if the row is open and the code is not.
    """
    text = f"{row}.{sentence}"
    waits = ", ".join(f"'{code}'" for code in sorted(WAITS))
    return f"""CASE
        WHEN {text} IS NOT NULL AND ({row}.reason_code IN ({waits})) = ({row}.finished_at IS NULL)
            THEN {row}.reason_code
        WHEN {row}.finished_at IS NULL AND {row}.lease_until IS NULL AND {row}.phase IN ('roster', 'leaving')
            THEN '{ReasonCode.WAITING_FOR_ROSTER}'
        WHEN {text} IS NULL THEN NULL
        WHEN {row}.finished_at IS NULL
            THEN CASE{_matching(text, _OLDER_WAITS)} ELSE '{ReasonCode.TRANSIENT_ERROR}' END
        WHEN {row}.status = 'skipped' AND {row}.phase = 'paused' THEN '{ReasonCode.BOARD_PAUSED}'
        ELSE CASE{_matching(text, _OLDER_ENDS)} END
    END"""


def _matching(text: str, patterns: tuple[tuple[str, ReasonCode], ...]) -> str:
    quoted = [(pattern.replace("'", "''"), code) for pattern, code in patterns]
    return "".join(f" WHEN {text} LIKE '{pattern}' THEN '{code}'" for pattern, code in quoted)


def outcome(row: str) -> str:
    """SQL: the `AgentOutcome` of the agent's row with the alias ``row``, null if there is none. Older workers
    record it in ``phase``, and record an agent that was moved as deleted."""
    older = f"'{AgentOutcome.PAUSED}', '{AgentOutcome.DELETED}'"
    return f"""coalesce({row}.outcome,
        CASE WHEN {row}.status = 'skipped' AND {row}.phase IN ({older}) THEN {row}.phase END)"""


def wait_reason(job: str) -> str:
    """SQL: why the running job with the alias ``job`` waits, null if it does not. Read from ``error`` until
    the next release, because that is the only column which all versions write."""
    return f"CASE WHEN {job}.finished_at IS NULL THEN {job}.error END"


def crashes(row: str) -> str:
    """SQL: how many workers died while they held the row with the alias ``row``. Until
    the next release read from ``attempts``, because workers before v0.3.0 count crashes only there."""
    return f"{row}.attempts"


def refusal_code(intent: str) -> str:
    """SQL: the `ReasonCode` of the roster intent with the alias ``intent``, null unless it was refused. If an
    older roster writer refused it, the code is derived from the sentence."""
    older = f"CASE{_matching(f'{intent}.error', _OLDER_ENDS)} END"
    return f"CASE WHEN {intent}.error IS NOT NULL THEN coalesce({intent}.reason_code, {older}) END"
