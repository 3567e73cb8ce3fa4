"""From facts to the files of a workspace, in the shape that one kind of gateway takes (design D2, D3).

A rendering holds a placeholder where the token belongs, so it can be hashed, compared and kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from traceback import walk_tb
from typing import Any, Literal, get_args

from jinja2 import Environment, StrictUndefined, UndefinedError
from jinja2.exceptions import TemplateError as JinjaError

from worker.errors import PermanentError
from worker.workspace.context import (
    AgentFacts,
    BoardFacts,
    GatewayFacts,
    UserFacts,
    board_agent_context,
    main_agent_context,
)
from worker.workspace.credentials import PLACEHOLDER
from worker.workspace.overrides import TemplateError, render_override
from worker.workspace.sources import loader

OVERRIDE_COLUMNS = {"IDENTITY.md": "identity_template", "SOUL.md": "soul_template"}
"""The columns of ``agents`` with which a user replaces a template (behaviour 8)."""
INJECTION_LIMIT = 20_000
"""Characters: where gateways begin to cut a file that they show to the agent (behaviour 14)."""

_SHARED = ("SOUL", "TASK_SOUL", "SELF", "AUTONOMY", "IDENTITY", "BOOTSTRAP", "MEMORY")
_OWN = ("AGENTS", "TOOLS", "USER", "HEARTBEAT", "BOOT")
_TOOLS, _AGENTS, _HEARTBEAT = "TOOLS.md", "AGENTS.md", "HEARTBEAT.md"

Role = Literal["lead", "member", "main"]

_COMPILING = threading.Lock()
"""Threads that begin together would each compile every template."""


@dataclass(frozen=True)
class Layout:
    """Where a gateway wants things; its dialect knows. ``files``: the names that agents.files.set takes."""

    files: frozenset[str]
    credentials_in: Literal["TOOLS.md", "AGENTS.md"]
    heartbeat_in: Literal["HEARTBEAT.md", "scratch"]


@dataclass(frozen=True)
class RenderedFile:
    """One thing to bring to the gateway: a file, a section of one, or the heartbeat scratch (``kind``).

    ``text`` has the placeholder in the token's place where ``carries_token``; ``source_sha256`` is the hex
    digest of ``text`` as it stands here, in UTF-8, so it says nothing of the token.
    """

    name: str
    kind: Literal["file", "section", "scratch"]
    text: str
    source_sha256: str
    carries_token: bool

    @property
    def too_long(self) -> bool:
        """Would a gateway cut it before its agent sees it? A warning, not a fault (behaviour 14)."""
        return len(self.text) > INJECTION_LIMIT


@dataclass(frozen=True)
class RenderedWorkspace(Mapping[str, RenderedFile]):
    """What to deliver, by name. ``unsupported``: what this gateway takes in no way, with sizes in bytes."""

    files: Mapping[str, RenderedFile]
    unsupported: Mapping[str, int]

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
) -> RenderedWorkspace:
    """All that an agent's workspace must hold; without ``board``, a gateway-main agent's (behaviour 6, 7).
    ``templates``: a folder whose templates come before the shipped ones of the same path.

    The same facts give the same bytes. Raises TemplateError for a template or override that cannot be used,
    PermanentError where the credentials would reach the agent in no way or a fact makes no workspace.
    """
    if layout.credentials_in not in layout.files:
        raise PermanentError(
            f"gateway {gateway.name!r} takes no {layout.credentials_in}, "
            f"so agent {agent.name!r} would be left without credentials"
        )
    with _COMPILING:
        environment = _environment(templates)
    texts = _texts(agent, board, gateway, user, base_url, layout, environment)
    if layout.credentials_in == _AGENTS:
        texts[_AGENTS] = f"{texts[_AGENTS]}\n\n{texts.pop(_TOOLS)}"
    files: dict[str, RenderedFile] = {}
    unsupported: dict[str, int] = {}
    for name, text in texts.items():
        _check_token_place(name, text, layout)
        scratch = name == _HEARTBEAT and layout.heartbeat_in == "scratch"
        if not text:
            continue
        if scratch or name in layout.files:
            files[name] = _rendered(name, "scratch" if scratch else "file", text)
        else:
            unsupported[name] = len(text.encode())
    return RenderedWorkspace(files, unsupported)


def template_paths(role: Role) -> dict[str, str]:
    """The shipped template of each workspace file, by file name, for an agent of that role (behaviour 7)."""
    folder = "main" if role == "main" else "board"
    paths = {f"{stem}.md": f"shared/{stem}.md.j2" for stem in _SHARED}
    paths |= {f"{stem}.md": f"{folder}/{stem}.md.j2" for stem in _OWN}
    if role == "lead":
        paths[_HEARTBEAT] = "board/HEARTBEAT_LEAD.md.j2"
    return dict(sorted(paths.items()))


def compile_templates(templates: Path | None = None) -> None:
    """Compile all templates (0.1 s of CPU), so that the first agents need not wait for it; a broken one is
    left for its agents to name."""
    for path in sorted({path for role in get_args(Role) for path in template_paths(role).values()}):
        with _COMPILING, contextlib.suppress(JinjaError):
            _environment(templates).get_template(path)


def _texts(
    agent: AgentFacts,
    board: BoardFacts | None,
    gateway: GatewayFacts,
    user: UserFacts | None,
    base_url: str,
    layout: Layout,
    environment: Environment,
) -> dict[str, str]:
    role: Role = "main" if board is None else "lead" if agent.is_board_lead else "member"
    context = (
        main_agent_context(agent, gateway, user, base_url)
        if board is None
        else board_agent_context(agent, board, gateway, user, base_url)
    )
    overrides = {name: getattr(agent, column) for name, column in OVERRIDE_COLUMNS.items()}
    surroundings: dict[str, Any] = {"role": role, "files": layout.files, "tools_file": layout.credentials_in}
    texts: dict[str, str] = {}
    for name, path in template_paths(role).items():
        override = overrides.get(name)
        if override and override.strip():
            texts[name] = render_override(f"the {name} override", override, context).strip()
        else:
            texts[name] = _render(environment, path, {**context, **surroundings}).strip()
    return texts


def _render(environment: Environment, path: str, context: Mapping[str, Any]) -> str:
    try:
        with _COMPILING:
            template = environment.get_template(path)
        return template.render(context)
    except JinjaError as error:
        line = getattr(error, "lineno", None) or _line_in(path, error)
        raise TemplateError(getattr(error, "name", None) or path, line, str(error)) from None


def _line_in(path: str, error: JinjaError) -> int:
    assert isinstance(error, UndefinedError)
    lines = [line for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename.endswith(path)]
    return lines[-1] if lines else 1


def _rendered(name: str, kind: Literal["file", "scratch"], text: str) -> RenderedFile:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return RenderedFile(name, kind, text, digest, carries_token=PLACEHOLDER in text)


def _check_token_place(name: str, text: str, layout: Layout) -> None:
    expected = 1 if name == layout.credentials_in else 0
    if text.count(PLACEHOLDER) != expected:
        raise TemplateError(name, 1, f"the token must stand once in {layout.credentials_in} and nowhere else")


class _Verbatim(str):
    """Text that a filter has already made safe to stand on lines of its own."""


def _one_line(value: Any) -> Any:
    return " ".join(value.split()) if type(value) is str else value


def _quoted(value: str) -> _Verbatim:
    lines = (line.rstrip() for line in value.strip().splitlines())
    return _Verbatim("\n".join(f"> {line}" if line else ">" for line in lines))


def _json(value: str) -> _Verbatim:
    # Written into quoted here-documents only, where a shell changes nothing.
    return _Verbatim(json.dumps(" ".join(value.split()), ensure_ascii=False))


@cache
def _environment(folder: Path | None) -> Environment:
    """The templates, each compiled once a process; those of ``folder`` also when they change.

    Whatever a template prints is folded onto one line, unless it went through ``quoted`` (a Markdown
    quotation) or ``json``: so no value can make a line of its own and plant a heading or a credential there.
    """
    environment = Environment(
        loader=loader(folder),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=folder is not None,
        cache_size=-1,
        finalize=_one_line,
    )
    environment.filters["quoted"] = _quoted
    environment.filters["json"] = _json
    return environment
