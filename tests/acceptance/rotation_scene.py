"""Rotations that are killed: one agent for every moment between two steps, each job stands still at its own,
and then the worker dies with all of them."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text

from tests.acceptance.proxy import Hold
from tests.acceptance.rotation_steps import Call, Moment, Subject, UndisturbedRotation, steps_of
from tests.acceptance.row_watch import RowWatch
from tests.acceptance.world import World
from tests.worker_process import SLOTS_OF_A_GATEWAY, WorkerProcess
from worker.workspace.tokens import find_token, verify_token

SLOT_FOR_EACH = {"WORKER_CONCURRENCY": "200", SLOTS_OF_A_GATEWAY: "75", "LEASE_S": "60"}
"""A gateway has half of its slots while it is slow. Whoever died keeps what it held until
`Scene.let_a_minute_pass`."""

verifies = functools.lru_cache(maxsize=None)(verify_token)


@dataclass(frozen=True)
class TokenState:
    """An agent as anybody finds it: the token in its workspace, and the hashes that are kept of it."""

    token: str
    hash: str
    pending: str | None

    def __repr__(self) -> str:
        return f"<token, hash, {'something' if self.pending else 'nothing'} pending>"

    @property
    def lets_in(self) -> bool:
        """Whether Mission Control knows the agent by its token."""
        return verifies(self.token, self.hash)

    @property
    def known(self) -> bool:
        """Whether any run can tell the token for the agent's."""
        return self.lets_in or (self.pending is not None and verifies(self.token, self.pending))

    @property
    def settled(self) -> bool:
        """Whether all is as after a run that ended well."""
        return self.pending is None and self.lets_in


@dataclass(eq=False)
class KilledRotation:
    """An agent whose rotation is killed at ``moment``; ``before`` and ``at_death``: how it stood."""

    moment: Moment
    subject: Subject
    before: TokenState
    job_id: UUID = field(default_factory=uuid4)
    at_death: TokenState = field(init=False)

    @property
    def agent_id(self) -> UUID:
        """The agent's key."""
        return self.subject.agent_id


@dataclass
class Scene:
    """One gateway on which rotations are killed, and the worker that is to die."""

    world: World
    watch: RowWatch
    worker: WorkerProcess
    subjects: Sequence[Subject]

    @property
    def carrier(self) -> str:
        """The file with the credentials."""
        return "AGENTS.md" if self.world.release >= "2026.8" else "TOOLS.md"

    def token_states(self, subjects: Sequence[Subject]) -> list[TokenState]:
        """How the agents stand now."""
        with self.world.engine.connect() as connection:
            keys = [subject.agent_id for subject in subjects]
            rows = {row.id: row for row in connection.execute(_HASHES, {"agents": keys})}
        texts = self.world.contents([subject.openclaw_id for subject in subjects], self.carrier)
        found = []
        for subject, content in zip(subjects, texts, strict=True):
            row, token = rows[subject.agent_id], self.token_in(content)
            assert token is not None
            found.append(TokenState(token, row.agent_token_hash, row.pending_hash))
        return found

    def token_in(self, content: str) -> str | None:
        """The token that a carrier's content holds."""
        return find_token(content, section=self.carrier == "AGENTS.md")

    def brought(self, subject: Subject) -> set[str | None]:
        """The tokens that came through the proxy for the agent."""
        return {
            self.token_in(params["content"])
            for method, params in self.world.proxy.calls
            if method == "agents.files.set"
            and (params["agentId"], params["name"]) == (subject.openclaw_id, self.carrier)
        }

    def rows_of(self, agents: Sequence[UUID]) -> list[object]:
        """All that the database keeps of the agents, jobs aside."""
        with self.world.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(_ROWS, {"agents": list(agents)})]

    def ended(self, jobs: Sequence[UUID]) -> list[Mapping[str, Any]]:
        """The jobs' rows once all have ended."""
        return [self.world.ended(job) for job in jobs]

    def rehearse(self, subject: Subject) -> UndisturbedRotation:
        """One rotation, seen from its first step to its last, by a worker that is connected already."""
        self.world.update(subject.agent_id, dry_run=True)
        self._new_words(subject, "Rehearsal")
        self.watch.forget()
        self.world.proxy.forget()
        [job] = self.ended([self._enqueue(uuid4(), subject.agent_id, wake=True)])
        assert (job["status"], job["result"]["token"]) == ("succeeded", "rotated"), job["error"]
        return UndisturbedRotation(steps_of(subject, self.world.proxy.frames, self.watch.steps()))

    def kill_at_each(
        self, undisturbed: UndisturbedRotation, moments: Sequence[Moment]
    ) -> list[KilledRotation]:
        """Let each moment have its victim, a rotation that stands still there, and kill the worker with all
        that stand; where some would keep others from coming, one worker after another."""
        subjects = self.subjects[: len(moments)]
        before = self.token_states(subjects)
        assert not any(each.pending for each in before)
        victims = [KilledRotation(*each) for each in zip(moments, subjects, before, strict=True)]
        # What names no agent can only be told apart while nobody else is at work; nobody is woken while
        # others wait for their files; one transaction at a time lets agents of the gateway be woken.
        leaving = [
            each for each in victims if each.moment.index == undisturbed.leaving and each.moment.before
        ]
        alone = [each for each in victims if each.moment.shared or each.moment.done > undisturbed.leaving]
        rest = [each for each in victims if each not in leaving and each not in alone]
        self.world.proxy.forget()
        for crew in ([*alone, *leaving[:1]], *([each] for each in leaving[1:])):
            self._kill(undisturbed, [[victim] for victim in crew])
        self._kill(undisturbed, [rest])
        for victim, now in zip(victims, self.token_states(subjects), strict=True):
            victim.at_death = now
        return victims

    def _kill(self, undisturbed: UndisturbedRotation, groups: Sequence[Sequence[KilledRotation]]) -> None:
        """Begin one group after another, each once all before it stand still; then kill the worker."""
        if not self.worker.running:
            self.worker = self.world.start_worker(**SLOT_FOR_EACH)
        holds: list[Hold] = []
        for group in groups:
            gates: dict[int, KilledRotation] = {}
            kept: dict[KilledRotation, Hold] = {}
            for victim in group:
                moment = victim.moment
                self._new_words(victim.subject, "Rotation")
                if isinstance(moment.step, Call):
                    wanted = moment.step.by(victim.subject)
                    kept[victim] = self.world.proxy.hold(wanted, after=not moment.before)
                else:
                    gates[self.watch.shut(victim.agent_id, moment.step.first)] = victim
                self._enqueue(victim.job_id, victim.agent_id, wake=moment.done > undisturbed.commit)
            holds += kept.values()
            self._await(gates, kept)
        self.worker.kill()
        self.world.eventually(lambda: not self.worker.running, "the worker lives")
        for hold in holds:
            hold.drop()
        self.watch.open()

    def _await(self, gates: Mapping[int, KilledRotation], kept: Mapping[KilledRotation, Hold]) -> None:
        def late() -> list[str]:
            blocked = self.watch.blocked_keys() if gates else ()
            missing = [victim for key, victim in gates.items() if key not in blocked]
            missing += [victim for victim, hold in kept.items() if not hold.reached.is_set()]
            return [str(victim.moment) for victim in missing]

        self.world.eventually(lambda: not late(), lambda: f"not come to their moments: {late()}")

    def cancel(self, victims: Sequence[KilledRotation]) -> None:
        """Ask for the end of the killed jobs."""
        with self.world.engine.begin() as connection:
            connection.execute(_CANCEL, {"jobs": [victim.job_id for victim in victims]})

    def let_a_minute_pass(self) -> None:
        """Messages that went down with the workers are taken for lost, and their leases have run out."""
        with self.world.engine.begin() as connection:
            connection.execute(_LATER)
            connection.execute(_LOST_JOBS)
            connection.execute(_LOST_ROWS)

    def leave_behind(self, subject: Subject, token: str, digest: str) -> None:
        """Put the agent where a rotation leaves it that died straight before its commit."""
        [state] = self.token_states([subject])
        content = str(self.world.read(subject.openclaw_id, self.carrier)).replace(state.token, token)
        self.world.write(subject.openclaw_id, **{self.carrier.removesuffix(".md"): content})
        values = {"agent_id": subject.agent_id, "pending": digest, "replaces": state.hash}
        with self.world.engine.begin() as connection:
            connection.execute(_LEAVE_PENDING, values)

    def _new_words(self, subject: Subject, words: str) -> None:
        """Make two of the agent's files differ, so that a rotation has more to write than its carrier."""
        text = f"{words} of {{{{ agent_name }}}}."
        self.world.set_agent(subject.agent_id, soul_template=text, identity_template=text)

    def take_words_back(self) -> None:
        """Leave the agents the templates that they had: the next job writes them."""
        for subject in self.subjects:
            self.world.set_agent(subject.agent_id, soul_template=None, identity_template=None)

    def _enqueue(self, key: UUID, agent_id: UUID, *, wake: bool) -> UUID:
        """A service's own row, as durable as the database."""
        options = json.dumps({"rotate_tokens": True, "wake": wake})
        with self.world.engine.begin() as connection:
            connection.execute(_ENQUEUE, {"id": key, "agent_id": agent_id, "options": options})
        return key


def subjects_of(world: World) -> list[Subject]:
    """The many of the world that are still there."""
    with world.engine.connect() as connection:
        rows = connection.execute(_SUBJECTS, {"agents": [agent.agent_id for agent in world.many]})
        return [Subject(row.id, row.openclaw_id, row.locator) for row in rows]


_HASHES = text("""
    SELECT a.id, a.agent_token_hash, c.pending_hash
    FROM agents a JOIN provisioner.agent_credentials c ON c.agent_id = a.id WHERE a.id = ANY(:agents)
""")
_SUBJECTS = text("""
    SELECT a.id, split_part(a.openclaw_session_id, ':', 2) AS openclaw_id, f.locator
    FROM agents a LEFT JOIN provisioner.agent_files f ON f.agent_id = a.id AND f.kind = 'scratch'
    WHERE a.id = ANY(:agents) ORDER BY a.name
""")
_ENQUEUE = text("""
    INSERT INTO provisioner.jobs (id, kind, agent_id, options)
    VALUES (:id, 'update_agent', :agent_id, CAST(:options AS jsonb))
""")
_CANCEL = text("UPDATE provisioner.jobs SET cancel_requested_at = now() WHERE id = ANY(:jobs)")
_LEAVE_PENDING = text("""
    UPDATE provisioner.agent_credentials
    SET pending_hash = :pending, replaces_hash = :replaces, job_id = gen_random_uuid()
    WHERE agent_id = :agent_id
""")
_ROWS = text("""
    SELECT to_jsonb(a), to_jsonb(c), (
        SELECT jsonb_agg(f ORDER BY name) FROM provisioner.agent_files f WHERE f.agent_id = a.id)
    FROM agents a JOIN provisioner.agent_credentials c ON c.agent_id = a.id
    WHERE a.id = ANY(:agents) ORDER BY a.id
""")
_LATER = text("""
    UPDATE provisioner.job_agents SET lease_until = now(), next_attempt_at = now()
    WHERE lease_until IS NOT NULL AND status = 'running'
""")
_LOST_JOBS = text("UPDATE provisioner.jobs SET next_attempt_at = now() WHERE status = 'queued'")
_LOST_ROWS = text("UPDATE provisioner.job_agents SET next_attempt_at = now() WHERE status = 'pending'")
