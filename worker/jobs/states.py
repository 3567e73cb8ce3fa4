"""The words that rows of jobs and agents hold: statuses, steps, outcomes and reason codes (interfaces.md 4).

A job's row, with the function of `worker.jobs.store` that makes each step::

    queued --start_single, start_sync--> running --finish, end_sync--> succeeded | partial | failed
    queued | running --cancel--> cancelled              queued --refuse--> failed

An agent's row in a job::

    pending --claim--> running, leased --finish--> succeeded | skipped | failed | cancelled
                       running, leased --park--> running, parked --published, claim--> running, leased
    pending --end_pending--> not_attempted | cancelled

Programs decide by these, people read the sentence beside them. models/ repeats what its CHECKs need, so that
a worker starts without the tables; a test compares the two.
"""

from __future__ import annotations

from enum import StrEnum

from worker.errors import ProvisionerError, TransientError

JOB_STATUSES = ("queued", "running", "succeeded", "partial", "failed", "cancelled")
"""``jobs.status``."""
OPEN_STATUSES = ("queued", "running")
"""Those of a job that has not ended."""
AGENT_STATUSES = ("pending", "running", "succeeded", "skipped", "failed", "cancelled", "not_attempted")
"""``job_agents.status``."""
OPEN_AGENT_STATUSES = ("pending", "running")
"""Those of an agent's row that has not ended."""


class Step(StrEnum):
    """``phase``: the step that a job or an agent's row is in, or ended in."""

    WAITING = "waiting"
    """A queued sync waits for another one of its gateway."""
    LOOK = "look"
    """A sync looks at its gateway's config."""
    INTENT = "intent"
    """Is about to ask for a roster change."""
    ROSTER = "roster"
    """The roster writer is to write what was asked for."""
    FILES = "files"
    CREDENTIALS = "credentials"
    LEAVING = "leaving"
    """An agent that moved is being removed where it was before."""
    WAKE = "wake"
    AGENTS = "agents"
    """A sync's agents are being synced."""
    MAIN = "main"
    """A sync's agents are done, and its gateway's main agent is being synced."""
    LOOKED = "looked"
    """The row ended with the look of its sync."""
    ENDED = "ended"


class AgentOutcome(StrEnum):
    """``job_agents.outcome``: why an agent was skipped without that being an error. Null for all others:
    their status says how they ended."""

    PAUSED = "paused"
    """Its board is paused (rules.md 32)."""
    DELETED = "deleted"
    """It was deleted while the job waited (rules.md 40)."""
    MOVED = "moved"
    """It was put on another gateway meanwhile."""

    @property
    def phase(self) -> str:
        """What ``phase`` says of it until the next release, for programs that read it there."""
        return "paused" if self is AgentOutcome.PAUSED else "deleted"


class ReasonCode(StrEnum):
    """Why a row waits, or why it ended without success. Each is of one sort: see `WAITS`."""

    BOARD_PAUSED = "board_paused"
    """A sync left the agent alone: its board is paused."""
    AGENT_DELETED = "agent_deleted"
    """There is no row of the agent any more, or, for its roster entry, none that puts it on the gateway."""
    AGENT_MOVED = "agent_moved"
    """The agent was put on another gateway while the job was at work on it."""
    NO_TOKEN = "no_token"
    """Its workspace holds no token that the agent can use, and the request asks for no new one."""
    NOT_REGISTERED = "not_registered"
    """The same of an agent that is not in its gateway's roster."""
    GATEWAY_UNREACHABLE = "gateway_unreachable"
    """The gateway was away for the whole retry timeout."""
    GATEWAY_REFUSED = "gateway_refused"
    """The gateway refuses, or nothing can be done there as it is."""
    REWRITE_REFUSED = "rewrite_refused"
    """A config write would rewrite what the gateway's owner wrote, and nobody has allowed that."""
    BROKEN_IDENTITY_TEMPLATE = "broken_identity_template"
    """agents.identity_template cannot be used."""
    BROKEN_SOUL_TEMPLATE = "broken_soul_template"
    """agents.soul_template cannot be used."""
    RETRIES_EXHAUSTED = "retries_exhausted"
    """A step failed for the whole retry timeout, with the gateway there."""
    WORKER_CRASHES = "worker_crashes"
    """CRASH_LIMIT workers died at it."""
    CANCELLED = "cancelled"
    """Somebody cancelled the job."""
    REFUSED_REQUEST = "refused_request"
    """The request cannot be served as it was made."""
    INTERNAL_ERROR = "internal_error"
    """An unexpected exception: a bug."""
    PERMANENT_ERROR = "permanent_error"
    """Any other error that will not pass: the sentence says what to correct."""
    AGENTS_FAILED = "agents_failed"
    """Of a job of many agents: not all succeeded, for different reasons, which their rows say."""

    WAITING_FOR_ROSTER = "waiting_for_roster"
    """Until the roster writer has settled what was asked for."""
    WAITING_FOR_AGENT = "waiting_for_agent"
    """Until another job is done with the agent."""
    WAITING_FOR_OTHER_AGENTS = "waiting_for_other_agents"
    """Until the other agents of the gateway have their files."""
    WAITING_FOR_GATEWAY = "waiting_for_gateway"
    """Until the gateway can be reached again."""
    WAITING_FOR_RESTART = "waiting_for_restart"
    """Until the gateway has restarted, as it announced."""
    WAITING_FOR_DATABASE = "waiting_for_database"
    """Until the database serves it again."""
    RATE_LIMITED = "rate_limited"
    """Until the gateway takes calls of this sort again."""
    BEING_WOKEN = "being_woken"
    """Another worker sends its wake message with others."""
    WORKER_STOPPING = "worker_stopping"
    """The worker that had it is stopping: any other may take it at once."""
    TRANSIENT_ERROR = "transient_error"
    """The last try failed with any other error that may pass."""


WAITS = frozenset(
    {
        ReasonCode.WAITING_FOR_ROSTER,
        ReasonCode.WAITING_FOR_AGENT,
        ReasonCode.WAITING_FOR_OTHER_AGENTS,
        ReasonCode.WAITING_FOR_GATEWAY,
        ReasonCode.WAITING_FOR_RESTART,
        ReasonCode.WAITING_FOR_DATABASE,
        ReasonCode.RATE_LIMITED,
        ReasonCode.BEING_WOKEN,
        ReasonCode.WORKER_STOPPING,
        ReasonCode.TRANSIENT_ERROR,
    }
)
"""The codes of rows that wait; all others are of rows and jobs that have ended."""


def code_of(error: Exception) -> ReasonCode:
    """The code of a row that the error stops: its own, else whether it may pass or was unexpected."""
    if not isinstance(error, ProvisionerError):
        return ReasonCode.INTERNAL_ERROR
    if error.reason_code is not None:
        return ReasonCode(error.reason_code)
    return ReasonCode.TRANSIENT_ERROR if isinstance(error, TransientError) else ReasonCode.PERMANENT_ERROR
