"""Layers of templates: which template of which layer an agent's file is made from (rules.md 49). Pure.

A layer holds the templates of an organization, a gateway, a board, a role or one agent. Of the layers that
concern an agent, the nearest one that has a template for a file counts for that file. Templates of layers are
rendered in the checked subset of Jinja, because users and agents may have written them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from worker.workspace.files import template_paths
from worker.workspace.overrides import PARTS, Source, parts_of, render_layered

Scope = Literal["organization", "gateway", "board", "role", "agent"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""The scopes of layers, the widest first."""
CARRIER = "TOOLS.md"
"""The file whose template holds the agent's token, which no layer may replace."""
KNOWN_FILES = frozenset(template_paths("member"))
"""The files that have a shipped template."""

_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}\.md")
_PART = re.compile(rf"{PARTS}[A-Za-z0-9][A-Za-z0-9_.-]{{0,62}}")
_BOARDS_ALONE = (
    "board_id",
    "board_name",
    "board_type",
    "board_objective",
    "board_success_metrics",
    "board_target_date",
    "board_goal_confirmed",
    "is_board_lead",
    "workspace_path",
)
"""What a main agent's context lacks."""


@dataclass(frozen=True)
class LayerTemplate:
    """One version of a file's template, or of a part, in a layer.

    ``target``: the id of its organization, gateway, board or agent; of a role, its organization and its name,
    as ``<id>/lead``. ``owner``: the layer in words, such as ``board Launch``. ``sha256``: of ``text`` in
    UTF-8, in hex. ``plain``: it is delivered as it is.
    """

    scope: Scope
    target: str
    name: str
    version: int
    plain: bool
    sha256: str
    text: str
    owner: str

    @property
    def layer(self) -> tuple[str, str]:
        """What tells its layer from all others."""
        return (self.scope, self.target)

    @property
    def title(self) -> str:
        """What sentences call it: ``SOUL.md of board Launch, version 3``."""
        called = f"the part {self.name}" if is_part(self.name) else self.name
        return f"{called} of {self.owner}, version {self.version}"

    @property
    def source(self) -> Source:
        """Its text, as it is rendered."""
        return Source(self.title, self.text, self.plain)


@dataclass(frozen=True)
class Layers:
    """All templates and parts of the layers that concern one agent, in the versions that it gets.

    ``plain_overrides``: the overrides in the agent's own columns are plain text.
    """

    templates: tuple[LayerTemplate, ...] = ()
    plain_overrides: bool = False

    def counting(self) -> dict[str, LayerTemplate]:
        """The template that counts for each file that has any, by the file's name."""
        nearest: dict[str, LayerTemplate] = {}
        for template in sorted(self.templates, key=lambda each: SCOPES.index(each.scope)):
            if template.name != CARRIER and not is_part(template.name):
                nearest[template.name] = template
        return nearest

    def render(self, template: LayerTemplate, context: Mapping[str, str]) -> str:
        """Render a template with the parts of its layer; not stripped. Raises TemplateError, which names the
        template or part at fault, its layer, version and line."""
        parts = {each.name: each for each in self.templates if each.layer == template.layer}

        def part(name: str) -> Source | None:
            return parts[name].source if name in parts else None

        return render_layered(template.source, context, part)

    def uses(self, template: LayerTemplate, names: Iterable[str]) -> bool:
        """Whether a template is one of the names in its layer, or includes one of them, directly or not."""
        wanted, seen, pending = set(names), set[str](), [template]
        parts = {each.name: each for each in self.templates if each.layer == template.layer}
        while pending:
            each = pending.pop()
            if each.name in wanted:
                return True
            new = set(parts_of(each.source)) - seen
            if new & wanted:
                return True
            seen |= new
            pending += [parts[name] for name in sorted(new) if name in parts]
        return False


NO_LAYERS = Layers()


def context_of_layers(context: Mapping[str, str], role: str, tools_file: str) -> dict[str, str]:
    """What a template of a layer knows (rules.md 10, 49).

    All agents' templates know the same names, so that one layer can serve boards and main agents: what only a
    board's agent has is empty for a main agent.
    """
    blank = dict.fromkeys(_BOARDS_ALONE, "")
    return {**blank, **context, "role": role, "tools_file": tools_file}


def is_part(name: str) -> bool:
    """Whether a template of that name is no file, but a part that templates of its layer include."""
    return name.startswith(PARTS)


def name_fault(name: str) -> str | None:
    """Why a layer can have no template of that name; None if it can."""
    if name.casefold() == CARRIER.casefold():
        return (
            f"{CARRIER} holds the agent's token, which no layer's template may know: only a template in"
            " TEMPLATES_DIR can replace it"
        )
    twin = next((known for known in KNOWN_FILES if known.casefold() == name.casefold()), None)
    if twin is not None and twin != name:
        return f"{name!r} would be taken for {twin}: write {twin}"
    if _FILE.fullmatch(name) or _PART.fullmatch(name):
        return None
    return (
        f"{name!r} can be no template's name: it is that of a file, as SOUL.md, or of a part that others"
        f" include, as {PARTS}tone; letters, digits and . _ - only"
    )
