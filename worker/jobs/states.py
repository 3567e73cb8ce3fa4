"""The statuses, steps, outcomes and reason codes in rows of jobs and agents (interfaces.md 4).

A job's row, with the function of `worker.jobs.store` that makes each step::

    enqueue--> queued --start_single, start_sync, start_heartbeats--> running
    running --finish, end_sync, end_if_done--> succeeded | partial | failed
    running --set_back_sync--> queued: a sync waits for a sync window
    queued --finish_queued--> succeeded    queued --refuse--> failed    queued | running --cancel--> cancelled

An agent's row in a job::

    pending --claim--> running, leased --finish--> succeeded | skipped | failed | cancelled
                       running, leased --park--> running, parked --mark_due, claim--> running, leased
                       running, leased --set_back--> pending: it waits for a sync window and holds nothing
                       running, lease run out --mark_due, claim--> running, leased: a crash is counted
    pending --end_unchanged--> succeeded: its sync has seen that it needs nothing
    pending --end_pending--> not_attempted | cancelled

Programs read these, people the sentences beside them. models/ repeats what its CHECKs need, so that a worker
starts without importing the tables; a test compares the two.
"""

from __future__ import annotations

from enum import StrEnum

from worker.errors import ProvisionerError, TransientError

JOB_STATUSES = ("queued", "running", "succeeded", "partial", "failed", "cancelled")
"""The values of ``jobs.status``."""
OPEN_STATUSES = ("queued", "running")
"""The statuses of a job that has not ended."""
AGENT_STATUSES = ("pending", "running", "succeeded", "skipped", "failed", "cancelled", "not_attempted")
"""The values of ``job_agents.status``."""
OPEN_AGENT_STATUSES = ("pending", "running")
"""The statuses of an agent's row that has not ended."""


class Step(StrEnum):
    """The values of ``phase``: the step that a job or an agent's row is in, or ended in."""

    WAITING = "waiting"
    """A queued sync waits for another sync of its gateway."""
    LOOK = "look"
    """A sync reads its gateway's config."""
    INTENT = "intent"
    """The roster change is about to be requested."""
    ROSTER = "roster"
    """The row waits for the roster writer to write the requested change."""
    FILES = "files"
    CREDENTIALS = "credentials"
    LEAVING = "leaving"
    """An agent that moved is being removed from its former place."""
    WAKE = "wake"
    COMPARE = "compare"
    """A sync compares its agents with what is on record of them, and ends the rows of those that need
    nothing."""
    AGENTS = "agents"
    """A sync's agents are being synced."""
    MAIN = "main"
    """A sync's agents are done, and its gateway's main agent is being synced."""
    DELIVER = "deliver"
    """A roll-out brings a ring of agents up to date."""
    CHECK = "check"
    """A roll-out reads back what a ring has got."""
    HEALTH = "health"
    """A roll-out waits for runs of a ring's agents."""
    LOOKED = "looked"
    """The row ended when its sync read the gateway's config."""
    ENDED = "ended"


class RolloutState(StrEnum):
    """``roll_out_agents.state``: how far an agent is in a roll-out."""

    WAITING = "waiting"
    """Its ring has not begun; until then it keeps what it has."""
    DELIVERING = "delivering"
    DELIVERED = "delivered"
    """It has the change; whether it is well is not known yet."""
    HEALTHY = "healthy"
    UNKNOWN = "unknown"
    """Nothing was heard of it in time."""
    FAILED = "failed"
    GONE = "gone"
    """It was deleted or moved, or its board was paused, before its turn."""


class AgentOutcome(StrEnum):
    """``job_agents.outcome``: why an agent was skipped without an error. Null for all other rows: their
    status says how they ended."""

    PAUSED = "paused"
    """Its board is paused (rules.md 32)."""
    DELETED = "deleted"
    """It was deleted while the job waited (rules.md 40)."""
    MOVED = "moved"
    """It was moved to another gateway meanwhile."""

    @property
    def phase(self) -> str:
        """What ``phase`` holds for this outcome until the next release, for programs that read it there."""
        return "paused" if self is AgentOutcome.PAUSED else "deleted"


class ReasonCode(StrEnum):
    """Why a row waits, or why it ended without success; `WAITS` lists the former."""

    BOARD_PAUSED = "board_paused"
    """A sync left the agent alone: its board is paused."""
    AGENT_DELETED = "agent_deleted"
    """The agent's row is gone; as the code of a roster intent, also: the row names another gateway, or the
    agent is being deleted."""
    AGENT_MOVED = "agent_moved"
    """The agent was moved to another gateway while the job was at work on it."""
    NO_TOKEN = "no_token"
    """The workspace holds no token that the agent can use, and the request does not ask for a new one."""
    NOT_REGISTERED = "not_registered"
    """There is no token because the agent is not in its gateway's roster."""
    GATEWAY_UNREACHABLE = "gateway_unreachable"
    """The gateway was unreachable for the whole retry timeout."""
    GATEWAY_REFUSED = "gateway_refused"
    """The gateway answered with a permanent error, or its config rules out the change."""
    REWRITE_REFUSED = "rewrite_refused"
    """A config write would rewrite what the gateway's owner wrote, which is not allowed."""
    BAD_SETTING = "bad_setting"
    """A setting of the agent's cannot be written on its gateway."""
    BROKEN_IDENTITY_TEMPLATE = "broken_identity_template"
    """agents.identity_template cannot be used."""
    BROKEN_SOUL_TEMPLATE = "broken_soul_template"
    """agents.soul_template cannot be used."""
    BROKEN_LAYER = "broken_layer"
    """A template of a layer cannot be used for the agent."""
    RETRIES_EXHAUSTED = "retries_exhausted"
    """A step failed for the whole retry timeout although the gateway could be reached."""
    WORKER_CRASHES = "worker_crashes"
    """CRASH_LIMIT workers died while they held the row."""
    CANCELLED = "cancelled"
    """The job was cancelled on request."""
    REFUSED_REQUEST = "refused_request"
    """The request cannot be served as it is."""
    INTERNAL_ERROR = "internal_error"
    """An unexpected exception: a bug."""
    PERMANENT_ERROR = "permanent_error"
    """Any other permanent error; the sentence says what to correct."""
    BUDGET_SPENT = "budget_spent"
    """A roll-out stopped: as many agents failed as its request allows."""
    AGENTS_FAILED = "agents_failed"
    """A job of many agents in which some failed, for different reasons: their rows say which."""

    WAITING_FOR_ROSTER = "waiting_for_roster"
    """The row waits until the roster writer has applied or refused the requested change."""
    WAITING_FOR_AGENT = "waiting_for_agent"
    """The row waits until another job is done with the agent."""
    WAITING_FOR_OTHER_AGENTS = "waiting_for_other_agents"
    """The row waits until most other agents of the gateway have their files."""
    WAITING_FOR_GATEWAY = "waiting_for_gateway"
    """The row waits until the gateway can be reached again."""
    WAITING_FOR_RESTART = "waiting_for_restart"
    """The row waits until the gateway has restarted, as announced."""
    WAITING_FOR_DATABASE = "waiting_for_database"
    """The row waits until the database can be used again."""
    RATE_LIMITED = "rate_limited"
    """The row waits until the gateway accepts calls of this kind again."""
    WAITING_FOR_WINDOW = "waiting_for_window"
    """The row waits until the gateway's sync windows are open (rules.md 55); it holds nothing meanwhile."""
    WAITING_FOR_RING = "waiting_for_ring"
    """A roll-out waits for the agents of a ring: to get the change, or to run well with it."""
    PAUSED = "paused"
    """A roll-out is paused, until somebody resumes it."""
    BEING_WOKEN = "being_woken"
    """Another worker is sending the row's wake message in a batch."""
    WORKER_STOPPING = "worker_stopping"
    """The worker that held the row is stopping; any other may claim the row at once."""
    TRANSIENT_ERROR = "transient_error"
    """The last try failed with another transient error."""


WAITS = frozenset(
    {
        ReasonCode.WAITING_FOR_ROSTER,
        ReasonCode.WAITING_FOR_AGENT,
        ReasonCode.WAITING_FOR_OTHER_AGENTS,
        ReasonCode.WAITING_FOR_GATEWAY,
        ReasonCode.WAITING_FOR_RESTART,
        ReasonCode.WAITING_FOR_DATABASE,
        ReasonCode.RATE_LIMITED,
        ReasonCode.WAITING_FOR_WINDOW,
        ReasonCode.WAITING_FOR_RING,
        ReasonCode.PAUSED,
        ReasonCode.BEING_WOKEN,
        ReasonCode.WORKER_STOPPING,
        ReasonCode.TRANSIENT_ERROR,
    }
)
"""The codes of rows that wait; all others belong to rows and jobs that have ended."""


def code_of(error: Exception) -> ReasonCode:
    """The code for a row that the error stops: the error's own, else that of a transient, permanent or
    internal error."""
    if not isinstance(error, ProvisionerError):
        return ReasonCode.INTERNAL_ERROR
    if error.reason_code is not None:
        return ReasonCode(error.reason_code)
    return ReasonCode.TRANSIENT_ERROR if isinstance(error, TransientError) else ReasonCode.PERMANENT_ERROR
