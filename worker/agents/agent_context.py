"""The context of an agent's job, which its steps share: the claimed row, the agent's record, its gateway."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from worker.gateway.agent_files import NotThereYetError
from worker.gateway.client import GatewayClient
from worker.gateway.dialect import Dialect
from worker.gateway.errors import UnknownAgent
from worker.gateway.extra_files import taken_files
from worker.jobs.store.job_agents import Claim, advance, finish
from worker.records.agent_repository import AgentRecord
from worker.records.drift import what_differs
from worker.runtime.services import Services
from worker.settings import Settings
from worker.workspace.bundle import OwnFiles
from worker.workspace.held import kept_texts
from worker.workspace.rendering import Layout, RenderedWorkspace, render_workspace

NOT_REGISTERED = (
    "It is not in its gateway's roster, so it holds no token there: provision it, or update or sync"
    " it with rotate_tokens."
)
"""Why an agent without a roster entry is left as it is (rules.md 25)."""


@dataclass(frozen=True)
class JobProfile:
    """How the kinds of jobs that bring an agent up to date differ.

    ``status``: agents.status during the job, None to leave it as it is (rules.md 35); ``action``:
    agents.provision_action during the job; ``done``: what the wake message says was done to the workspace;
    ``mints``: a missing token is minted even if the request does not ask for a new one (rules.md 25);
    ``serves_main``: the agent may be a gateway's main agent.
    """

    status: str | None
    action: str
    done: str
    mints: bool
    serves_main: bool = False


@dataclass
class AgentContext:
    """A claimed row and everything that the steps of its job need.

    ``files``: the report for ``job_agents.files``; ``fresh``: this job added the agent to the roster, so some
    of the gateway's calls may not know it yet; ``rekeyed``: the agent's token was changed during this claim;
    ``one_session``: the gateway has a single main session for all agents, which is its owner's;
    ``adopting``: the agent is being taken under care, and no file is created (rules.md 48);
    ``restores``: texts of the agent's, by file name, that a rollback brings back (rules.md 51);
    ``own``: what a bundle holds for the workspace, if the agent is restored from one (rules.md 52);
    ``before_commit``: called in the transaction in which a verified token's hash is committed, before that.
    """

    services: Services
    held: Claim
    record: AgentRecord
    profile: JobProfile
    dialect: Dialect
    warnings: list[str] = field(default_factory=list)
    files: dict[str, Any] = field(default_factory=dict)
    fresh: bool = False
    rekeyed: bool = False
    one_session: bool = False
    adopting: bool = False
    restores: Mapping[str, str] = field(default_factory=dict)
    own: OwnFiles | None = None
    before_commit: Callable[[Connection], None] | None = None
    _asked: set[str] = field(default_factory=set)

    @property
    def client(self) -> GatewayClient:
        """The client of the agent's gateway. It is looked up on each use because the pool may drop idle
        clients."""
        return self.services.clients.client(self.record.address)

    @property
    def agent_id(self) -> UUID:
        """The agent's primary key."""
        return self.held.agent_id

    def option(self, name: str) -> bool:
        """A boolean option of the request; absent is false."""
        return self.held.options.get(name) is True

    def names(self, option: str) -> frozenset[str]:
        """An option of the request that names files; absent is none."""
        given = self.held.options.get(option)
        names = given if isinstance(given, list) else ()
        return frozenset(name for name in names if isinstance(name, str))

    @property
    def wants_reset(self) -> bool:
        """Whether the request asks for a new session."""
        return self.option("reset_session") or self.option("reset_sessions")

    def succeed(
        self, connection: Connection, result: Mapping[str, Any], roster: Mapping[str, Any] | None = None
    ) -> None:
        """End the row with what was reported and warned of so far. ``roster``: what a dry run would change
        in the agent's roster entry. Raises LeaseLostError."""
        finish(
            connection,
            self.held,
            "succeeded",
            result=result,
            warnings=self.warnings,
            files=self.files,
            differs=what_differs(self.held.kind, self.held.options, self.files, roster),
        )

    def advance(self, connection: Connection, phase: str | None, **columns: Any) -> None:
        """Record the step that begins (None keeps it) and ``columns``, and renew the lease. Raises
        LeaseLostError."""
        advance(connection, self.held, phase, lease_s=self.services.settings.lease_s, **columns)

    def warn(self, sentence: str) -> None:
        """Add a warning to the job's result, unless the result already has it."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def call(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Make one RPC about the agent. Raises GatewayError, or NotThereYetError if the gateway does not know
        the agent yet because this job has just added it."""
        try:
            return self.client.call(method, params)
        except UnknownAgent as error:
            if self.fresh:
                raise NotThereYetError.of_agent(self.record.address.url, self.record.openclaw_id) from error
            raise

    def result(self) -> dict[str, Any]:
        """The agent's part of the job's result so far (interfaces.md 5)."""
        tokens = [report["token"] for report in self.files.values() if "token" in report]
        restored = self.own.report() if self.own is not None else {}
        return {
            "agent_id": str(self.agent_id),
            "openclaw_id": self.record.openclaw_id,
            "session_key": self.record.session_key,
            "workspace_path": self.record.workspace,
            "files": self.files,
            "woken": self.held.woken_at is not None,
            "token": tokens[0] if tokens else None,
            "warnings": self.warnings,
            **restored,
        }

    def render(self) -> RenderedWorkspace:
        """The agent's workspace, rendered for its gateway (rules.md 6-9). Raises PermanentError."""
        skip = self.option("rotate_tokens")  # a user's text must not keep a token from being changed
        self._ask_for_extra_files()
        return render(self.record, self.dialect, self.services.settings, skip_bad_overrides=skip)

    def _ask_for_extra_files(self) -> None:
        """Ask the gateway once for files of layers that its dialect does not know, and add those it takes."""
        asked = self.record.layers.counting().keys() - self.dialect.files - self._asked
        if self.dialect.heartbeat_in == "scratch":
            asked -= {"HEARTBEAT.md"}
        if not asked:
            return
        found = self.services.retry_inline(lambda: taken_files(self.client, self.record.openclaw_id, asked))
        for name, taken in found.items():
            if taken is not None:
                self._asked.add(name)
            if taken is False:
                self.warn(f"This gateway does not take {name}, which a layer of templates holds.")
        self.dialect = self.dialect.with_files({name for name, taken in found.items() if taken})


def render(
    record: AgentRecord, dialect: Dialect, settings: Settings, *, skip_bad_overrides: bool = False
) -> RenderedWorkspace:
    """Render an agent's workspace for gateways of ``dialect``, with a placeholder for the token.

    Files that the agent keeps as they were have the texts that it keeps (rules.md 50).
    ``skip_bad_overrides``: leave out an unusable override with a warning. Raises PermanentError.
    """
    layout = Layout(dialect.files, dialect.credentials_in, dialect.heartbeat_in)
    agent = record.agent
    if record.home.adopted:
        agent = replace(agent, session_key=record.session_key, workspace_path=record.workspace)
    kept = kept_texts(record.held, layout.credentials_in)
    rendered = render_workspace(
        agent,
        record.board,
        record.gateway,
        record.user,
        settings.base_url,
        layout,
        settings.templates_dir,
        layers=record.layers,
        kept=kept.texts,
        skip_bad_overrides=skip_bad_overrides,
    )
    return replace(rendered, warnings=(*rendered.warnings, *kept.warnings)) if kept.warnings else rendered
