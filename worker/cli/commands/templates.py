"""``provisioner template list|show|set|diff|check|promote|revert|history|overrides``."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from uuid import UUID

import typer
from sqlalchemy import Connection

from worker.cli.console import (
    Json,
    argument,
    complain,
    counted,
    emit,
    named,
    note,
    plain,
    say,
    short,
    show_list,
    table,
)
from worker.cli.environment import engine, operator_settings
from worker.cli.errors import FAILED, WrongUseError
from worker.cli.lookup import find, find_organization
from worker.cli.options import with_parameters
from worker.cli.targets import Agent, Board, Gateway, Target, apply_command, find_id
from worker.cli.views.files import coloured
from worker.masking import mask, secrets_in
from worker.records.agent_repository import load_agent
from worker.records.layer_check import LayerCheck, check_layer
from worker.records.template_layers import (
    Layer,
    add_version,
    all_templates,
    history_of,
    lock_layer,
    override_forms,
    promote,
    promoted_versions,
    revert,
    role_target,
    set_override_form,
    templates_of,
    version_before,
    version_of,
)
from worker.worker_row import require_no_older_worker
from worker.workspace.diffs import file_diff, known_secrets
from worker.workspace.files import Role, template_paths
from worker.workspace.layers import LayerTemplate, Scope, name_fault
from worker.workspace.overrides import INPUT_LIMIT, Source, TemplateError, check_source
from worker.workspace.rendering import OVERRIDE_COLUMNS
from worker.workspace.template_sources import sources_sha256
from worker.workspace.templates import shown_path, source_of

app = typer.Typer(
    help="Templates of agents' files, by organization, gateway, board, role and agent.",
    no_args_is_help=True,
)

SINCE = "0021"
"""The revision of our tables from which on workers know of layers."""
_UNKNOWN_BASE_URL = "https://base-url-is-not-set.invalid"

Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="A file, such as SOUL.md, or a part of files, such as parts/tone."),
]
Names = Annotated[
    list[str], typer.Argument(metavar="NAME", help="Files and parts, which are promoted together.")
]
Organization = Annotated[
    str | None,
    typer.Option(
        "--organization",
        metavar="NAME",
        help="All agents of an organization; with --role, whose role it is.",
        show_default=False,
    ),
]
RoleOption = Annotated[
    str | None,
    typer.Option("--role", metavar="ROLE", help="All of a role: lead, member or main.", show_default=False),
]
Version = Annotated[
    int | None,
    typer.Option("--version", metavar="N", min=1, help="The newest if not given.", show_default=False),
]


@dataclass(frozen=True)
class Given:
    """How an operator named a layer."""

    organization: str | None = None
    gateway: str | None = None
    board: str | None = None
    role: str | None = None
    agent: str | None = None

    def layer(self, connection: Connection, *, gone: bool = False) -> Layer:
        """The one layer that was named. ``gone``: the full id of a target whose row is gone is enough."""
        given: Sequence[tuple[Scope, str | None]] = [
            ("organization", None if self.role is not None else self.organization),
            ("gateway", self.gateway),
            ("board", self.board),
            ("role", self.role),
            ("agent", self.agent),
        ]
        named_ones = [(scope, name) for scope, name in given if name is not None]
        if len(named_ones) != 1:
            raise WrongUseError("Name one of --organization, --gateway, --board, --role and --agent.")
        scope, name = named_ones[0]
        if scope == "organization":
            return Layer(scope, str(find_organization(connection, name)), f"organization {plain(name)}")
        if scope == "role":
            if name not in get_args(Role):
                raise WrongUseError(f"--role is lead, member or main, not {name!r}.")
            organization_id = find_organization(connection, self.organization)
            return Layer(scope, role_target(organization_id, name), f"role {name}")
        return Layer(scope, str(find_id(connection, scope, name, gone=gone)), f"{scope} {plain(name)}")


_LAYER_OPTIONS: Mapping[str, Any] = {
    "organization": Organization,
    "gateway": Gateway,
    "board": Board,
    "role": RoleOption,
    "agent": Agent,
}


def of_layer(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that name a layer, in place of its parameter ``given``."""
    added = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=option)
        for name, option in _LAYER_OPTIONS.items()
    ]
    return with_parameters(command, "given", added, lambda typed: Given(**typed))


@app.command("set")
@of_layer
def set_command(
    *,
    name: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The text; - reads it from stdin.")],
    given: Given,
    as_text: Annotated[
        bool, typer.Option("--plain", help="It is not a template: {{ and {% are plain text.")
    ] = False,
    remark: Annotated[
        str | None, typer.Option("--note", metavar="TEXT", help="What changed.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Set a new version of a template. Nothing is delivered before it is promoted.

    A template inserts names, tests conditions and includes parts of its layer, as agents' overrides do; see
    docs/operations.md. The nearest layer that has a template for a file counts: the agent's, its role's, its
    board's, its gateway's, its organization's.
    """
    _check_name(name)
    body = _read(file)
    try:
        check_source(Source(str(file), body, as_text))
    except TemplateError as error:
        raise WrongUseError(f"{error}.") from None
    with engine().begin() as connection:
        require_no_older_worker(connection, SINCE, "layers of templates")
        layer = given.layer(connection)
        version, added = add_version(
            connection, layer, name, body, plain=as_text, note=remark, by=_operator()
        )
        made = version_of(connection, layer, name, version)
    if as_json:
        emit({**_document(made), "added": added})
        return
    title = made.title.replace("the part", "The part", 1) if made.title.startswith("the part") else made.title
    say(f"{title}, {'is set' if added else 'holds that text already'}.")
    if secrets_in(body):
        note("It holds what looks like a secret: whoever may read the database can read it.")
    say(f"Promote it: provisioner template promote {name}{_options(layer, given.organization)}")


@app.command("check")
@of_layer
def check(
    *,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="All of the layer if none is given.")
    ] = None,
    given: Given,
    version: Version = None,
    as_json: Json = False,
) -> None:
    """Render versions for every agent that would get them, as if they were promoted. Writes nothing."""
    with engine().connect() as connection:
        layer = given.layer(connection, gone=True)
        wanted = names or [row.name for row in templates_of(connection, layer)]
        candidates = _candidates(connection, layer, wanted, version)
        found = check_layer(connection, layer, candidates, _base_url())
    _report(layer, candidates, found, as_json=as_json)
    if found.faults:
        raise typer.Exit(FAILED)


@app.command("promote")
@of_layer
def promote_command(
    *,
    names: Names,
    given: Given,
    version: Version = None,
    none: Annotated[bool, typer.Option("--none", help="Promote none: a wider layer counts again.")] = False,
    as_json: Json = False,
) -> None:
    """Give the agents of a layer a version, by default the newest.

    It is checked first, for every agent concerned; if it cannot be used for one of them, that agent is named
    and nothing is promoted. The next provision, update or sync of an agent delivers it.
    """
    if none and version is not None:
        raise WrongUseError("Give --version or --none, not both.")
    with engine().begin() as connection:
        require_no_older_worker(connection, SINCE, "layers of templates")
        layer = given.layer(connection)
        lock_layer(connection, layer)
        candidates = _candidates(connection, layer, names, version)
        if none:
            candidates = dict.fromkeys(candidates)
        found = check_layer(connection, layer, candidates, _base_url())
        changed = [] if found.faults else promote(connection, layer, _numbers(candidates), by=_operator())
        released = found.release(connection, changed)
        apply = _apply(connection, layer)
    _report(layer, candidates, found, as_json=as_json, promoted=changed)
    if released and not as_json:
        note(f"{counted(released, 'held file')} will follow the new version.")
    _conclude(layer, candidates, found, changed, apply, as_json=as_json)


@app.command("revert")
@of_layer
def revert_command(
    *,
    name: Name,
    given: Given,
    as_json: Json = False,
) -> None:
    """Go back to what was promoted before; again, one further back.

    It is checked as by `promote`. Before the first promotion, the next wider layer counted, or TEMPLATES_DIR
    and the shipped templates.
    """
    with engine().begin() as connection:
        layer = given.layer(connection, gone=True)
        lock_layer(connection, layer)
        version = version_before(connection, layer, name)
        candidates = {name: version_of(connection, layer, name, version) if version is not None else None}
        found = check_layer(connection, layer, candidates, _base_url())
        changed = [] if found.faults else [name]
        if changed:
            revert(connection, layer, name, by=_operator())
        apply = _apply(connection, layer)
    _report(layer, candidates, found, as_json=as_json, promoted=changed)
    _conclude(layer, candidates, found, changed, apply, as_json=as_json)


@app.command("list")
def list_command(agent: Agent = None, as_json: Json = False) -> None:
    """List the templates of all layers; or, for an agent, what each of its files is made from."""
    base = sources_sha256(operator_settings().templates_dir)
    with engine().connect() as connection:
        if agent is not None:
            _list_of_agent(connection, find(connection, "agent", agent), as_json=as_json)
            return
        rows = [dict(row._mapping) for row in all_templates(connection)]
        forms = override_forms(connection)
    if as_json:
        emit(
            [*rows, {"scope": "shipped", "sha256": base, "templates_dir": operator_settings().templates_dir}]
        )
        return
    shown = table("Layer", "Name", "Promoted", "Newest", last="Set (UTC)", folds=True)
    for row in rows:
        whose = plain(row["target"]) if row["target"] is not None else f"{short(row['target_id'])} (gone)"
        promoted = "-" if row["promoted"] is None else str(row["promoted"])
        newest = f"{row['version']}{', plain' if row['plain'] else ''}"
        last = ", ".join(filter(None, [f"{row['set_at']:%Y-%m-%d %H:%M}", row["set_by"], row["note"]]))
        shown.add_row(f"{row['scope']} {whose}", row["name"], promoted, newest, plain(last))
    say(shown if rows else "No template yet: provisioner template set SOUL.md FILE --board BOARD")
    for form in forms:
        what = "plain text" if form.plain else "templates"
        note(f"Overrides of {form.scope} {short(form.target_id)} are read as {what}.")
    note(f"TEMPLATES_DIR and the shipped templates: version {base[:12]}.")


def _list_of_agent(connection: Connection, agent_id: UUID, *, as_json: bool) -> None:
    record = load_agent(connection, agent_id, main=True)
    folder = operator_settings().templates_dir
    role: Role = "main" if record.board is None else "lead" if record.agent.is_board_lead else "member"
    layered = record.layers.counting()
    documents = []
    for name, path in sorted({**dict.fromkeys(layered), **template_paths(role)}.items()):
        column = OVERRIDE_COLUMNS.get(name)
        override = getattr(record.agent, column) if column else None
        found: Mapping[str, Any] = {"scope": "shipped", "target_id": None, "version": None}
        made_from = shown_path(path, folder) if path is not None else ""
        if override and override.strip():
            made_from, found = f"agents.{column}", {**found, "scope": "override"}
        elif name in layered:
            made_from, found = layered[name].title, _document(layered[name])
        place = {key: found[key] for key in ("scope", "target_id", "version")}
        documents.append({"name": name, "from": made_from, **place})
    shown = table("File", last="From")
    for each in documents:
        shown.add_row(str(each["name"]), plain(each["from"]))
    show_list(documents, shown, nothing="", as_json=as_json)


@app.command("show")
@of_layer
def show(
    *,
    name: Name,
    given: Given,
    version: Version = None,
    as_json: Json = False,
) -> None:
    """Show the text of a version. If no layer is named: the text in TEMPLATES_DIR, or the shipped one."""
    if given == Given():
        _show_base(name, as_json=as_json)
        return
    with engine().connect() as connection:
        layer = given.layer(connection, gone=True)
        found = version_of(connection, layer, name, version)
        promoted = promoted_versions(connection, layer).get(name)
    is_promoted = promoted is not None and promoted.version == found.version
    if as_json:
        emit({**_document(found), "is_promoted": is_promoted, "text": _without_secrets(found.text)})
        return
    note(f"{found.title}{', plain' if found.plain else ''}{', promoted' if is_promoted else ''}")
    typer.echo(_shown(found.text), nl=not found.text.endswith("\n"))


def _show_base(name: str, *, as_json: bool) -> None:
    folder = operator_settings().templates_dir
    path = template_paths("member").get(name)
    if path is None:
        raise WrongUseError(f"There is no shipped template of {name!r}: name a layer, as with --board BOARD.")
    source = source_of(path, folder)
    if as_json:
        emit(
            {
                "scope": "shipped",
                "name": name,
                "sha256": sources_sha256(folder),
                "text": _without_secrets(source),
            }
        )
        return
    note(f"{shown_path(path, folder)}, version {sources_sha256(folder)[:12]}")
    typer.echo(_shown(source), nl=not source.endswith("\n"))


@app.command("diff")
@of_layer
def diff(
    *,
    name: Name,
    given: Given,
    older: Annotated[
        int | None, typer.Option("--from", metavar="N", min=1, help="The promoted one if not given.")
    ] = None,
    newer: Annotated[
        int | None, typer.Option("--to", metavar="N", min=1, help="The newest if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show how two versions differ: by default the promoted and the newest one."""
    with engine().connect() as connection:
        layer = given.layer(connection, gone=True)
        after = version_of(connection, layer, name, newer)
        before = promoted_versions(connection, layer).get(name)
        if older is not None:
            before = version_of(connection, layer, name, older)
    texts = before.text if before else "", after.text
    shown = file_diff(*texts, known_secrets(texts, ()), ("promoted", "newest"))
    if as_json:
        numbers = {"from": before.version if before else None, "to": after.version}
        emit({**layer.key, "name": name, **numbers, "diff": shown})
        return
    if not shown:
        note("They do not differ.")
        return
    say(coloured(shown), verbatim=True)


@app.command("history")
@of_layer
def history(
    *,
    name: Name,
    given: Given,
    as_json: Json = False,
) -> None:
    """Show the versions of a template, and when each was promoted."""
    with engine().connect() as connection:
        layer = given.layer(connection, gone=True)
        rows = [dict(row._mapping) for row in history_of(connection, layer, name)]
    shown = table("Version", "Set (UTC)", "Promoted (UTC)", "By", last="Note", folds=True)
    for row in rows:
        since, until = row["promoted_at"], row["promoted_until"]
        promoted = f"{since:%m-%d %H:%M}{f' to {until:%m-%d %H:%M}' if until else ', now'}" if since else ""
        shown.add_row(
            f"{row['version']}{', plain' if row['plain'] else ''}",
            f"{row['set_at']:%Y-%m-%d %H:%M}",
            promoted,
            plain(row["set_by"] or ""),
            plain(row["note"] or ""),
        )
    show_list(rows, shown, nothing="", as_json=as_json)


Form = Literal["plain", "template", "inherit"]


@app.command("overrides")
@of_layer
def overrides(
    *,
    form: Annotated[
        str, typer.Argument(metavar="FORM", help="plain, template, or inherit: as a wider layer says.")
    ],
    given: Given,
    as_json: Json = False,
) -> None:
    """Say how the overrides in agents' own rows are read: as templates, or as plain text.

    In plain text, {{ and {% mean nothing. The nearest layer that says something counts.
    """
    if form not in get_args(Form):
        raise WrongUseError(f"FORM is plain, template or inherit, not {form!r}.")
    with engine().begin() as connection:
        require_no_older_worker(connection, SINCE, "layers of templates")
        layer = given.layer(connection, gone=form == "inherit")
        wanted = {"plain": True, "template": False, "inherit": None}[form]
        set_override_form(connection, layer, wanted, by=_operator())
        apply = _apply(connection, layer)
    if as_json:
        emit({**layer.key, "plain": wanted})
        return
    what = {"plain": "plain text", "template": "templates", "inherit": "a wider layer says"}[form]
    say(f"Overrides of {layer.owner} are read as {what}.", f"Apply it: {apply}")


def _shown(body: str) -> str:
    """A template's text as it may be shown: without secrets, and without what a terminal obeys."""
    return "\t".join(plain(piece) for piece in _without_secrets(body).split("\t"))


def _without_secrets(body: str) -> str:
    """The text with every secret that it names masked, wherever else it stands too."""
    return mask(body, known_secrets([body], ()))


def _read(file: Path) -> str:
    """The text of a file, or of stdin. Raises WrongUseError."""
    try:
        data = sys.stdin.buffer.read(INPUT_LIMIT + 4) if str(file) == "-" else file.read_bytes()
        body = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise WrongUseError(f"The file {file} is not UTF-8 text: save it as UTF-8.") from None
    except OSError as error:
        raise WrongUseError(f"The file {file} cannot be read: {error.strerror}.") from None
    if "\x00" in body:
        raise WrongUseError(f"The file {file} holds a NUL character, so it is not text.")
    if len(body.encode()) > INPUT_LIMIT:
        raise WrongUseError(
            f"The file {file} is longer than {INPUT_LIMIT // 1024} KB: put pieces of it into parts, and"
            " include those."
        )
    return body


def _check_name(name: str) -> None:
    if fault := name_fault(name):
        raise WrongUseError(f"{fault}.")


def _candidates(
    connection: Connection, layer: Layer, names: Sequence[str], version: int | None
) -> dict[str, LayerTemplate | None]:
    if version is not None and len(names) != 1:
        raise WrongUseError("--version is for one NAME.")
    if not names:
        raise WrongUseError(f"There is no template in the layer of {layer.owner}.")
    return {name: version_of(connection, layer, name, version) for name in names}


def _numbers(candidates: Mapping[str, LayerTemplate | None]) -> dict[str, int | None]:
    return {name: each.version if each is not None else None for name, each in candidates.items()}


def _report(
    layer: Layer,
    candidates: Mapping[str, LayerTemplate | None],
    found: LayerCheck,
    *,
    as_json: bool,
    promoted: Sequence[str] | None = None,
) -> None:
    """Print what came of a check."""
    if as_json:
        templates = [{"name": name, "version": number} for name, number in _numbers(candidates).items()]
        document = {
            **layer.key,
            "templates": templates,
            "agents": found.agents,
            "faults": [vars(fault) for fault in found.faults],
            "warnings": found.warnings,
            "left_out": found.left_out,
        }
        emit(document | ({} if promoted is None else {"promoted": promoted}))
        return
    for fault in found.faults:
        complain(f"{fault.agent}: {fault.says}")
    for warning in dict.fromkeys(found.warnings):
        note(warning)
    if found.left_out:
        note(f"Not checked, because their own rows cannot be used: {named(found.left_out)}.")
    if not found.faults and (found.agents or any(candidates.values())):
        say(f"Rendered for {counted(found.agents, 'agent')}.")


def _conclude(
    layer: Layer,
    candidates: Mapping[str, LayerTemplate | None],
    found: LayerCheck,
    changed: Sequence[str],
    apply: str,
    *,
    as_json: bool,
) -> None:
    if found.faults:
        failed = len({fault.agent_id for fault in found.faults})
        if not as_json:
            complain(f"Nothing is promoted: it fails for {failed} of {counted(found.agents, 'agent')}.")
        raise typer.Exit(FAILED)
    if as_json:
        return
    if not changed:
        say("That is what is promoted already.")
        return
    say(_said(layer, candidates, changed), f"Apply it: {apply}")


def _said(layer: Layer, candidates: Mapping[str, LayerTemplate | None], changed: Sequence[str]) -> str:
    """What was done; of a promotion, or of a revert, all names are promoted or all are taken away."""
    if all(candidates[name] is None for name in changed):
        return f"Taken away from {layer.owner}: {named(changed)}. What is behind it counts again."
    now = [f"{name} version {number}" for name, number in _numbers(candidates).items() if name in changed]
    return f"Promoted for {layer.owner}: {named(now)}."


def _options(layer: Layer, organization: str | None) -> str:
    """The options that name a layer."""
    scope, _, name = layer.owner.partition(" ")
    more = f" --organization {argument(organization)}" if scope == "role" and organization else ""
    return f" --{scope} {argument(name)}{more}"


def _apply(connection: Connection, layer: Layer) -> str:
    """The command that delivers what was promoted."""
    if layer.scope == "organization" or layer.scope == "role":
        return "provisioner sync GATEWAY, for each of its gateways"
    target = Target(layer.scope, UUID(layer.target), layer.owner.partition(" ")[2])
    return apply_command(connection, target)


def _document(template: LayerTemplate) -> dict[str, Any]:
    return {
        "scope": template.scope,
        "target_id": template.target,
        "name": template.name,
        "version": template.version,
        "plain": template.plain,
        "sha256": template.sha256,
    }


def _base_url() -> str:
    return operator_settings().base_url or _UNKNOWN_BASE_URL


def _operator() -> str:
    """Who runs the command."""
    try:
        return f"cli: {getpass.getuser()}"
    except (KeyError, OSError):  # an account without a name
        return "cli"
