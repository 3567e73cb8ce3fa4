"""Renders versions of a layer's templates for every agent that would get them, before they are promoted."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import Connection

from worker.database import DATABASE_AWAY
from worker.errors import PermanentError
from worker.records.agent_repository import AgentRecord, load_agent
from worker.records.holds import release_superseded
from worker.records.template_layers import Layer, agents_of, pinned_templates
from worker.workspace.display_text import shown_name
from worker.workspace.layers import SCOPES, Layers, LayerTemplate
from worker.workspace.overrides import TemplateError
from worker.workspace.rendering import INJECTION_LIMIT, OVERRIDE_COLUMNS, layer_context


@dataclass(frozen=True)
class LayerFault:
    """An agent for which a layer's template cannot be used; ``says`` names the template, version and line."""

    agent_id: UUID
    agent: str
    says: str


@dataclass(frozen=True)
class LayerCheck:
    """What came of rendering. ``agents``: how many it was rendered for; ``warnings``: what is odd but can be
    delivered; ``left_out``: agents whose own rows cannot be used, whatever the template; ``files``: the files
    that were rendered, by agent."""

    agents: int
    faults: tuple[LayerFault, ...]
    warnings: tuple[str, ...]
    left_out: tuple[str, ...]
    files: Mapping[UUID, frozenset[str]] = field(default_factory=dict)

    def release(self, connection: Connection, promoted: Collection[str]) -> int:
        """Once templates of these names are promoted, end the holds on the files that were rendered (rules.md
        50). Returns how many."""
        if not promoted:
            return 0
        return sum(release_superseded(connection, [key], names) for key, names in self.files.items() if names)


def check_layer(
    connection: Connection, layer: Layer, candidates: Mapping[str, LayerTemplate | None], base_url: str
) -> LayerCheck:
    """Render every file that the candidates have a part in, for every agent that the layer concerns and
    nothing nearer overrules, as if they were promoted: of a pinned agent, the version that it is pinned to.

    ``candidates``: versions by name; None: that template is taken away, and agents get that of a wider layer,
    which is rendered instead. Raises database errors.
    """
    pinned = pinned_templates(connection, layer)
    files: dict[UUID, frozenset[str]] = {}
    rendered, faults, warnings, left_out = 0, list[LayerFault](), list[str](), list[str]()
    for row in agents_of(connection, layer):
        name = shown_name(row.name, str(row.id))
        try:
            record = load_agent(connection, row.id, main=True)
            context = layer_context(record.agent, record.board, record.gateway, record.user, base_url)
        except DATABASE_AWAY:
            raise
        except PermanentError:
            left_out.append(name)
            continue
        wanted = {**candidates, **{name: each for name, each in pinned[row.id].items() if name in candidates}}
        layers = _with(record.layers, layer, wanted)
        concerned = list(_concerned(record, layers, layer, wanted))
        rendered += bool(concerned)
        files[row.id] = frozenset(template.name for template in concerned)
        for template in concerned:
            try:
                text = layers.render(template, context).strip()
            except TemplateError as error:
                faults.append(LayerFault(row.id, name, str(error)))
                continue
            if not text:
                warnings.append(
                    f"{name}: {template.title}, renders to nothing, so no such file is delivered."
                )
            elif len(text) > INJECTION_LIMIT:
                warnings.append(
                    f"{name}: {template.name} has {len(text)} characters: gateways cut an injected file near"
                    f" {INJECTION_LIMIT}."
                )
    return LayerCheck(rendered, tuple(faults), tuple(warnings), tuple(left_out), files)


def _with(layers: Layers, layer: Layer, candidates: Mapping[str, LayerTemplate | None]) -> Layers:
    kept = [
        each
        for each in layers.templates
        if each.layer != (layer.scope, layer.target) or each.name not in candidates
    ]
    new = [each for each in candidates.values() if each is not None]
    return Layers((*kept, *new), layers.plain_overrides)


def _concerned(
    record: AgentRecord, layers: Layers, layer: Layer, candidates: Mapping[str, LayerTemplate | None]
) -> Iterator[LayerTemplate]:
    """The templates that count for the agent and would be changed by the candidates."""
    for name, template in layers.counting().items():
        column = OVERRIDE_COLUMNS.get(name)
        override = getattr(record.agent, column) if column else None
        overridden = bool(override and override.strip())
        ours = template.layer == (layer.scope, layer.target)
        uncovered = name in candidates and candidates[name] is None and _is_wider(template, layer)
        if (ours or uncovered) and not overridden and layers.uses(template, candidates):
            yield template


def _is_wider(template: LayerTemplate, layer: Layer) -> bool:
    return SCOPES.index(template.scope) < SCOPES.index(layer.scope)
