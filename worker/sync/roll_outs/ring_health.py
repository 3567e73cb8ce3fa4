"""Looks at how the agents of a ring are: their token, and their last run (rules.md 57)."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from uuid import UUID

from worker.errors import PermanentError, TransientError, as_sentence
from worker.gateway.agent_files import AgentFiles
from worker.gateway.client import Call, GatewayClient
from worker.gateway.dialect import Dialect
from worker.gateway.errors import GatewayError
from worker.gateway.runs import LastRun, last_runs
from worker.jobs.states import RolloutState
from worker.jobs.store import roll_outs
from worker.jobs.store.job_leases import JobClaim
from worker.jobs.store.roll_outs import Member
from worker.records.agent_repository import DeletedAgentError, load_agent
from worker.records.gateway_repository import GatewayRecord, require_gateway, wanted_agents
from worker.runtime.services import Services
from worker.workspace.tokens import find_token, verify_token

log = logging.getLogger(__name__)

LONGEST_LOOK_S = 10.0
"""Seconds after which a look at a ring ends; what it did not get to is looked at next."""
PROBE = (
    "Mission Control has just changed files of your workspace, and checks that you still run. Do nothing else"
    " now: answer OK."
)
NOT_TOLD = "Its release does not tell of runs."
OLD_SESSION = (
    "Its release shows an agent its files as they were when its session began, so its runs tell nothing of"
    " the change: --reset-sessions begins new ones."
)

State = tuple[str, str | None]


def look_at_ring(
    services: Services, held: JobClaim, members: Sequence[Member], away: dict[UUID, str]
) -> bool:
    """Record what can be known of these agents, all of which have the change; returns whether there was no
    time for all of them. A gateway that is away is looked at the next time; why it cannot be asked now is
    put into ``away``, by its id.

    An agent of whose runs nothing will ever be known keeps its state, with a reason (`Member.untold`), unless
    ``accept_unknown`` has it count as well at once.
    """
    until = time.monotonic() + LONGEST_LOOK_S
    for gateway_id in dict.fromkeys(each.gateway_id for each in members):
        if time.monotonic() > until:
            return True
        own = [each for each in members if each.gateway_id == gateway_id]
        try:
            if _look_at(services, held, gateway_id, own, until):
                return True
        except TransientError as error:
            away[gateway_id] = str(error)
            log.info("gateway %s cannot be asked now how its agents are: %s", gateway_id, error)
    return False


def _look_at(
    services: Services, held: JobClaim, gateway_id: UUID, members: Sequence[Member], until: float
) -> bool:
    with services.engine.connect() as connection:
        gateway = require_gateway(connection, gateway_id)
    client = services.clients.client(gateway.address)
    hello = client.hello()
    dialect = Dialect.from_hello(hello.server_version, hello.methods)
    noted: dict[UUID, State] = {}
    verified = []
    for each in members:
        if not each.verified and time.monotonic() < until:
            fault = _fault_of(services, client, dialect, each)
            if fault is None:
                verified.append(each.agent_id)
            else:
                noted[each.agent_id] = fault
    ready = [each for each in members if each.verified or each.agent_id in verified]
    with services.engine.begin() as connection:
        roll_outs.note_verified(connection, held.job_id, verified)
        roll_outs.note_states(connection, held.job_id, noted)
    judged = _judged(services, held, gateway, client, dialect, ready)
    with services.engine.begin() as connection:
        roll_outs.note_states(connection, held.job_id, judged)
    return len(ready) + len(noted) < len(members) and time.monotonic() >= until


def untold_on(dialect: Dialect, *, reset_sessions: bool) -> str | None:
    """Why the runs of agents on such a gateway tell nothing of a change; None if they do."""
    if dialect.runs_in is None:
        return NOT_TOLD
    return OLD_SESSION if dialect.keeps_files_per_session and not reset_sessions else None


def _fault_of(services: Services, client: GatewayClient, dialect: Dialect, member: Member) -> State | None:
    """What is wrong with the token in the agent's workspace; None if it is the agent's. Raises
    TransientError."""
    try:
        with services.engine.connect() as connection:
            record = load_agent(connection, member.agent_id, main=True)
        if record.gateway_id != member.gateway_id:
            return RolloutState.GONE, "It was moved to another gateway meanwhile."
        files = AgentFiles(client, dialect, record.openclaw_id)
        name = dialect.credentials_in
        found = files.read([name]).get(name)
    except DeletedAgentError:
        return RolloutState.GONE, "It was deleted meanwhile."
    except PermanentError as error:
        return RolloutState.FAILED, str(error)
    content = found.content if found is not None else None
    token = find_token(content, section=name == "AGENTS.md") if content else None
    known = (
        record.token_hash
    )  # null where nobody of ours has set it, so that it cannot be checked (rules.md 25)
    if token is None or (known is not None and not verify_token(token, known)):
        return RolloutState.FAILED, f"Its {name} does not hold its token."
    return None


def _judged(
    services: Services,
    held: JobClaim,
    gateway: GatewayRecord,
    client: GatewayClient,
    dialect: Dialect,
    members: Sequence[Member],
) -> dict[UUID, State]:
    """The states of those of the agents of which something is known."""
    untold = untold_on(dialect, reset_sessions=held.option("reset_sessions"))
    if untold is not None:
        known = RolloutState.HEALTHY if held.option("accept_unknown") else RolloutState.DELIVERED
        return {each.agent_id: (known, untold) for each in members}
    with services.engine.connect() as connection:
        wanted = wanted_agents(connection, gateway, [each.agent_id for each in members])
    keys = {agent: one.home.session_key for agent, one in wanted.items()}
    if held.option("probe"):
        _probe(services, held, client, members, keys)
    longest_s = max((each.reached_s or 0.0 for each in members), default=0.0)
    runs = last_runs(client, dialect, set(keys.values()), longest_s)
    noted: dict[UUID, State] = {}
    for each in members:
        run = runs.get(keys.get(each.agent_id, ""))
        state = _state_after(run, each) if run is not None else None
        if state is not None:
            noted[each.agent_id] = state
    return noted


def _state_after(run: LastRun, member: Member) -> State | None:
    """The state of an agent after its last run; None if that began before the change, or goes on."""
    if run.how == "running" or run.began_s > (member.reached_s or 0.0):
        return None
    if run.how == "well":
        return RolloutState.HEALTHY, None
    why = as_sentence(run.error or "it does not say why")
    return RolloutState.FAILED, f"Its first run since the change failed: {why}"


def _probe(
    services: Services,
    held: JobClaim,
    client: GatewayClient,
    members: Sequence[Member],
    keys: dict[UUID, str],
) -> None:
    """Send each of the agents one message, unless one was sent before; a worker that dies in between sends no
    second one. Raises GatewayError if there is no connection."""
    fresh = [each.agent_id for each in members if each.probed_s is None and each.agent_id in keys]
    if not fresh:
        return
    with services.engine.begin() as connection:
        fresh = roll_outs.note_probed(connection, held.job_id, fresh)
    calls = [
        Call(
            "chat.send",
            {
                "sessionKey": keys[agent],
                "message": PROBE,
                "deliver": False,
                "idempotencyKey": f"roll-out-{held.job_id}-{agent}",
            },
        )
        for agent in fresh
    ]
    for agent, answer in zip(fresh, client.call_many(calls), strict=True):
        if isinstance(answer, GatewayError):
            log.warning("the message that was to show whether agent %s runs was not taken: %s", agent, answer)
