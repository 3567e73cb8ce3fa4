"""Renders the files of a workspace from facts, in a gateway's layout (decisions.md D2, D3).

A rendering has a placeholder instead of the agent's token, so it can be hashed, compared and kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from worker.errors import PermanentError
from worker.workspace.context import (
    AgentFacts,
    BoardFacts,
    GatewayFacts,
    UserFacts,
    board_agent_context,
    main_agent_context,
)
from worker.workspace.files import Role, template_paths
from worker.workspace.layers import NO_LAYERS, Layers, LayerTemplate, context_of_layers
from worker.workspace.overrides import TemplateError, plain_text, render_override
from worker.workspace.templates import check_token, render_template, shown_path
from worker.workspace.templates import compile_templates as compile_all
from worker.workspace.tokens import PLACEHOLDER

OVERRIDE_COLUMNS = {"IDENTITY.md": "identity_template", "SOUL.md": "soul_template"}
"""The columns of ``agents`` with which a user overrides a template (rules.md 8)."""
INJECTION_LIMIT = 20_000
"""The length, in characters, from which gateways cut a file that they show to the agent (rules.md 14)."""

_TOOLS, _AGENTS, _HEARTBEAT = "TOOLS.md", "AGENTS.md", "HEARTBEAT.md"
_NONE_KEPT: Mapping[str, str | None] = {}


@dataclass(frozen=True)
class Layout:
    """The workspace files that a gateway accepts, and where it keeps credentials and the heartbeat text.

    All of it is according to the gateway's dialect. ``files``: the names that agents.files.set accepts.
    """

    files: frozenset[str]
    credentials_in: Literal["TOOLS.md", "AGENTS.md"]
    heartbeat_in: Literal["HEARTBEAT.md", "scratch"]


@dataclass(frozen=True)
class RenderedFile:
    """One thing to deliver to the gateway: a file, a section of one, or the heartbeat scratch (``kind``).

    ``text`` has the placeholder instead of the token if ``carries_token``. ``source_sha256`` is the hex
    digest of this ``text`` in UTF-8, so it reveals nothing about the token.
    """

    name: str
    kind: Literal["file", "section", "scratch"]
    text: str
    source_sha256: str
    carries_token: bool

    @property
    def too_long(self) -> bool:
        """Whether a gateway cuts the text before its agent sees it.

        That is a warning, not an error (rules.md 14).
        """
        return len(self.text) > INJECTION_LIMIT


@dataclass(frozen=True)
class RenderedWorkspace(Mapping[str, RenderedFile]):
    """What to deliver, by file name.

    ``unsupported``: the sizes in bytes, by name, of files that this gateway accepts in no form. ``warnings``:
    sentences about files that should be delivered but cannot be.
    """

    files: Mapping[str, RenderedFile]
    unsupported: Mapping[str, int]
    warnings: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> RenderedFile:
        return self.files[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


def render_workspace(
    agent: AgentFacts,
    board: BoardFacts | None,
    gateway: GatewayFacts,
    user: UserFacts | None,
    base_url: str,
    layout: Layout,
    templates: Path | None = None,
    *,
    layers: Layers = NO_LAYERS,
    kept: Mapping[str, str | None] = _NONE_KEPT,
    skip_bad_overrides: bool = False,
) -> RenderedWorkspace:
    """Render everything that an agent's workspace must hold (rules.md 6, 7).

    Without ``board``, the agent is its gateway's main agent. ``templates``: a folder whose templates take
    precedence over the shipped ones of the same path. ``layers``: templates that take precedence over both.
    ``kept``: texts that take the place of renderings, None for a file that is not to be delivered; that of
    the file that carries the token has the placeholder.
    ``skip_bad_overrides``: leave out an unusable override or template of a layer with a warning.

    The same facts give the same bytes. Raises TemplateError for a template or override that cannot be used,
    and PermanentError if the credentials could not reach the agent or the facts allow no workspace.
    """
    if layout.credentials_in not in layout.files:
        raise PermanentError(
            f"gateway {gateway.name!r} takes no {layout.credentials_in}, "
            f"so agent {agent.name!r} would be left without credentials",
            reason_code="gateway_refused",
        )
    warnings: list[str] = []
    role, context, for_overrides = _contexts(agent, board, gateway, user, base_url)
    subject = _Subject(agent, role, context, for_overrides, layout, templates, layers, skip_bad_overrides)
    kept = {name: text for name, text in kept.items() if name != _TOOLS or layout.credentials_in == _TOOLS}
    texts = _texts(subject, kept, warnings)
    if layout.credentials_in == _AGENTS and _AGENTS in kept:
        texts.pop(_TOOLS)
    elif layout.credentials_in == _AGENTS:
        texts[_AGENTS] = "\n\n".join(filter(None, (texts[_AGENTS], texts.pop(_TOOLS))))
    files: dict[str, RenderedFile] = {}
    unsupported: dict[str, int] = {}
    for name, text in texts.items():
        scratch = name == _HEARTBEAT and layout.heartbeat_in == "scratch"
        if not text:
            continue
        if scratch or name in layout.files:
            files[name] = _rendered(name, "scratch" if scratch else "file", text)
        else:
            unsupported[name] = len(text.encode())
    return RenderedWorkspace(files, unsupported, tuple(warnings))


def layer_context(
    agent: AgentFacts,
    board: BoardFacts | None,
    gateway: GatewayFacts,
    user: UserFacts | None,
    base_url: str,
    tools_file: str = _TOOLS,
) -> dict[str, str]:
    """What templates of layers know of an agent. Raises PermanentError if the facts allow no workspace."""
    role, _, for_overrides = _contexts(agent, board, gateway, user, base_url)
    return context_of_layers(for_overrides, role, tools_file)


def compile_templates(templates: Path | None = None) -> None:
    """Compile all templates (0.1 s of CPU), so that the first agents do not wait for it.

    A broken template is skipped; rendering it reports the error.
    """
    paths = {path for role in get_args(Role) for path in template_paths(role).values()}
    compile_all(sorted(paths), templates)


@dataclass(frozen=True)
class _Subject:
    """Whose workspace to render, and how.

    ``skip_bad_overrides``: leave out an unusable override or template of a layer with a warning instead of
    failing the agent.
    """

    agent: AgentFacts
    role: Role
    context: Mapping[str, str]
    for_overrides: Mapping[str, str]
    layout: Layout
    templates: Path | None
    layers: Layers
    skip_bad_overrides: bool

    @property
    def shipped_context(self) -> dict[str, Any]:
        """What the shipped templates know."""
        files, tools_file = self.layout.files, self.layout.credentials_in
        return {**self.context, "role": self.role, "files": files, "tools_file": tools_file}


def _contexts(
    agent: AgentFacts,
    board: BoardFacts | None,
    gateway: GatewayFacts,
    user: UserFacts | None,
    base_url: str,
) -> tuple[Role, Mapping[str, str], Mapping[str, str]]:
    """The agent's role, and the contexts of its templates and of its overrides."""
    if board is None:
        context = main_agent_context(agent, gateway, user, base_url)
        # The shipped templates do not use it (rules.md 10), but overrides written for Mission Control may.
        return "main", context, {**context, "main_session_key": context["session_key"]}
    context = board_agent_context(agent, board, gateway, user, base_url)
    return "lead" if agent.is_board_lead else "member", context, context


def _texts(subject: _Subject, kept: Mapping[str, str | None], warnings: list[str]) -> dict[str, str]:
    layered = subject.layers.counting()
    paths: dict[str, str | None] = {**dict.fromkeys(layered), **template_paths(subject.role)}
    texts: dict[str, str] = {}
    text: str | None
    for name, path in sorted(paths.items()):
        column = OVERRIDE_COLUMNS.get(name)
        override = getattr(subject.agent, column) if column else None
        if name in kept:
            text = kept[name]
        elif column and override and override.strip():
            text = _overridden(subject, name, column, override, warnings)
        elif name in layered:
            text = _layered(subject, layered[name], path, warnings)
        else:
            assert path is not None
            text = _templated(subject, name, path, warnings)
        if text is not None:
            texts[name] = text
    return texts


def _templated(subject: _Subject, name: str, path: str, warnings: list[str]) -> str:
    """The rendering of an operator's own or a shipped template."""
    text = render_template(path, subject.shipped_context, subject.templates).strip()
    check_token(path, text, name == _TOOLS, subject.templates)
    own = shown_path(path, subject.templates)
    if not text and own != path and name in subject.layout.files:
        warnings.append(f"{own} renders to nothing, so no {name} is delivered: fill it, or remove it.")
    return text


def _layered(subject: _Subject, template: LayerTemplate, path: str | None, warnings: list[str]) -> str | None:
    """The rendering of a layer's template; None if the file is not delivered."""
    name = template.name
    context = context_of_layers(subject.for_overrides, subject.role, subject.layout.credentials_in)
    try:
        text = subject.layers.render(template, context).strip()
    except TemplateError as error:
        if not subject.skip_bad_overrides:
            error.reason_code = "broken_layer"
            raise
        if path is not None and name == subject.layout.credentials_in:
            # It must be written, or its agent would have no token.
            warnings.append(f"{name} was made from the shipped template instead: {error}")
            return _templated(subject, name, path, warnings)
        warnings.append(f"{name} was left as it is, and the rest was done: {error}")
        return None
    if not text:
        warnings.append(
            f"{template.title}, renders to nothing, so no {name} is delivered: set a version with a text, or"
            " take it back with `provisioner template revert`."
        )
    return text


def _overridden(subject: _Subject, name: str, column: str, override: str, warnings: list[str]) -> str | None:
    """The rendering of a user's override; None if the file is not delivered."""
    title = f"the {name} override"
    try:
        if subject.layers.plain_overrides:
            text = plain_text(title, override).strip()
        else:
            text = render_override(title, override, subject.for_overrides).strip()
    except TemplateError as error:
        if not subject.skip_bad_overrides:
            error.reason_code = f"broken_{column}"
            raise
        warnings.append(f"{name} was left as it is, and the rest was done: {error}")
        return None
    if not text:
        warnings.append(
            f"The {name} override renders to nothing, so no {name} is delivered: write its text into"
            f" agents.{column}, or set that to null for the shipped text."
        )
    return text


def _rendered(name: str, kind: Literal["file", "scratch"], text: str) -> RenderedFile:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return RenderedFile(name, kind, text, digest, carries_token=PLACEHOLDER in text)
