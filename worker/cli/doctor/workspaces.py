"""Checks which files the gateway's release takes, and renders every agent against its size limit. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from worker.cli.console import argument, counted
from worker.cli.doctor.report import Finding
from worker.errors import PermanentError
from worker.gateway.dialect import Dialect
from worker.jobs.states import ReasonCode
from worker.records.agent_repository import AgentRecord
from worker.workspace.files import template_paths
from worker.workspace.overrides import TemplateError
from worker.workspace.rendering import (
    INJECTION_LIMIT,
    OVERRIDE_COLUMNS,
    Layout,
    RenderedFile,
    RenderedWorkspace,
    render_workspace,
)
from worker.workspace.template_sources import OWN

UNKNOWN_BASE_URL = "https://base-url-is-not-set.invalid"


def check_file_support(dialect: Dialect) -> Iterator[Finding]:
    """Find files that are delivered in another form, or that the release does not take (rules.md 6,
    gateways.md 8)."""
    names = sorted(template_paths("member"))
    ways = {}
    if dialect.credentials_in != "TOOLS.md":
        ways["TOOLS.md"] = f"a section of {dialect.credentials_in}"
    if dialect.heartbeat_in == "scratch":
        ways["HEARTBEAT.md"] = "the heartbeat scratch"
    taken = [name for name in names if name in dialect.files]
    lost = [name for name in names if name not in dialect.files and name not in ways]
    says = f"{len(taken)} of {len(names)} taken as they are"
    if ways:
        says += "; " + ", ".join(f"{name} as {way}" for name, way in ways.items())
    if lost:
        stems = ", ".join(name.removesuffix(".md") for name in lost)
        says += f"; not taken at all: {stems} (what an agent needs of them is in AGENTS.md)"
    if dialect.credentials_in in dialect.files:
        yield Finding("files", "ok", says, lost)
    else:
        cure = f"it takes no {dialect.credentials_in}, so no agent could get its token: use another release"
        yield Finding("files", "fault", cure, lost)


def check_renderings(
    dialect: Dialect, records: Sequence[AgentRecord], base_url: str | None, templates: Path | None = None
) -> Iterator[Finding]:
    """Render every agent as a job would; find broken templates and files that are too long (rules.md 9,
    14)."""

    def render(record: AgentRecord) -> RenderedWorkspace:
        where = base_url or UNKNOWN_BASE_URL
        return render_workspace(
            record.agent,
            record.board,
            record.gateway,
            record.user,
            where,
            layout,
            templates,
            layers=record.layers,
        )

    layout = Layout(dialect.files, dialect.credentials_in, dialect.heartbeat_in)
    longest: tuple[int, str] = (0, "")
    sound = True
    for record in records:
        try:
            rendered = render(record)
        except TemplateError as error:
            sound = False
            yield Finding("templates", "fault", _cure(record, error), [record.shown_name])
            continue
        except PermanentError as error:
            sound = False
            yield Finding("templates", "fault", f"{record.shown_name}: {error}", [record.shown_name])
            continue
        except Exception as error:
            sound = False
            says = f"{record.shown_name}: cannot be rendered ({type(error).__name__}): see what its rows hold"
            yield Finding("templates", "fault", says, [record.shown_name])
            continue
        for sentence in rendered.warnings:
            sound = False
            yield Finding("templates", "warning", f"{record.shown_name}: {sentence}", [record.shown_name])
        for file in rendered.values():
            longest = max(longest, (len(file.text), f"{file.name} of {record.shown_name}"))
            if file.too_long:
                sound = False
                yield _too_long(record, file)
    if sound and records:
        says = (
            f"{counted(len(records), 'agent')} rendered; the longest file is {longest[1]}: {longest[0]:,}"
            f" characters of {INJECTION_LIMIT:,}"
        )
        yield Finding("templates", "ok", says)


def _too_long(record: AgentRecord, file: RenderedFile) -> Finding:
    says = (
        f"{record.shown_name}: {file.name} has {len(file.text):,} characters, and gateways cut what an agent"
        f" sees of a file at about {INJECTION_LIMIT:,}: shorten what its rows put there"
    )
    return Finding("budget", "warning", says, [record.shown_name])


def _named(record: AgentRecord) -> str:
    """What to type for the agent: its name, or its id if the name cannot be shown in full."""
    name = record.agent.name
    return name if name == record.shown_name else str(record.agent.id)


def _cure(record: AgentRecord, error: TemplateError) -> str:
    if error.reason_code == ReasonCode.BROKEN_LAYER:
        cure = "promote a version without that, or take it back with `provisioner template revert`"
        return f"{record.shown_name}: {error}; {cure}"
    column = OVERRIDE_COLUMNS.get(error.template.removeprefix("the ").removesuffix(" override"))
    where = f"correct agents.{column}, then `provisioner update {argument(_named(record))}`"
    own = f"correct that file of {OWN.rstrip('/')}" if error.template.startswith(OWN) else None
    cure = where if column else own or "the shipped template is at fault"
    return f"{record.shown_name}: {error}; {cure}"
