"""``provisioner settings set|unset|show``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

import typer
from sqlalchemy import Connection

from worker.cli.console import Json, emit, named, note, plain, say, short, show_list, table
from worker.cli.environment import engine
from worker.cli.errors import WrongUseError
from worker.cli.lookup import find
from worker.cli.targets import Agent, Board, Gateway, Target, apply_command, find_target
from worker.gateway.entry_settings import (
    FieldRecord,
    field_fault,
    leaves_of,
    overlap,
    value_fault,
)
from worker.records.agent_settings import (
    Setting,
    all_settings,
    counting,
    fields_on_record,
    set_settings,
    settings_concerning,
    unset_settings,
)
from worker.records.holds import release_fields

app = typer.Typer(
    help="What agents' roster entries should have: model, skills, tools, sandbox and the like.",
    no_args_is_help=True,
)

_LONGEST_VALUE = 64 * 1024
Field = Annotated[
    str, typer.Argument(metavar="FIELD", help="Its path in an agent's entry: model, tools.profile.")
]


@app.command("set")
def set_command(
    field: Field,
    value: Annotated[
        str, typer.Argument(metavar="VALUE", help='JSON or plain text: stub/m, true, \'["a", "b"]\'.')
    ],
    gateway: Gateway = None,
    board: Board = None,
    agent: Agent = None,
    lock: Annotated[bool, typer.Option("--lock", help="Let no board or agent set it differently.")] = False,
    as_json: Json = False,
) -> None:
    """Set a field of the roster entries of a gateway, a board or an agent.

    The nearest setting wins, field by field: an agent's before its board's before its gateway's, unless a
    wider one is locked. The keys of an object are fields of their own. It is written at the next update, sync
    or heartbeats job, which asks the gateway first whether its release knows the field.
    """
    wanted = _fields(field, value)
    with engine().begin() as connection:
        target = find_target(connection, gateway, board, agent)
        if lock and target.scope == "agent":
            raise WrongUseError("--lock is for a gateway or a board: nothing is nearer than an agent.")
        replaced = set_settings(connection, target.scope, target.id, wanted, locked=lock)
        release_fields(connection, target.scope, target.id, wanted)
        overruled = _locked_above(connection, target, wanted)
        apply = apply_command(connection, target)
    if as_json:
        made = [{"field": name, "value": one, "locked": lock} for name, one in wanted.items()]
        emit({**target.document(), "settings": made, "replaced": replaced})
        return
    for name, one in wanted.items():
        say(f"{name} = {_shown(one)} for {target.named}{', locked' if lock else ''}")
    if replaced:
        note(f"It replaces {named(replaced)}.")
    for name, setting in overruled.items():
        note(f"It has no effect: {name} is locked for the {setting.scope}.")
    say(f"Apply it: {apply}")


@app.command("unset")
def unset(
    field: Field,
    gateway: Gateway = None,
    board: Board = None,
    agent: Agent = None,
    as_json: Json = False,
) -> None:
    """Take back a setting, and all inside it.

    The next update, sync or heartbeats job then writes what the nearest other setting says or, if none does,
    what was there before. A field that somebody else changed since is left as it is.
    """
    with engine().begin() as connection:
        target = find_target(connection, gateway, board, agent, gone=True)
        fields = unset_settings(connection, target.scope, target.id, field)
        release_fields(connection, target.scope, target.id, fields)
        apply = apply_command(connection, target)
    if not fields:
        raise WrongUseError(
            f"There is no setting {field!r} for {target.named}: `provisioner settings show` lists them."
        )
    if as_json:
        emit({**target.document(), "unset": fields})
        return
    say(f"{named(fields)} unset for {target.named}.", f"Apply it: {apply}")


@app.command("show")
def show(gateway: Gateway = None, board: Board = None, agent: Agent = None, as_json: Json = False) -> None:
    """Show the settings: all of them, those of a gateway or a board, or all that concern one agent.

    For an agent, also which of them count, what was written to its entry, and what was there before.
    """
    with engine().connect() as connection:
        if agent is not None and gateway is None and board is None:
            _show_agent(connection, find(connection, "agent", agent), as_json=as_json)
            return
        target = None
        if gateway is not None or board is not None or agent is not None:
            target = find_target(connection, gateway, board, agent, gone=True)
        found = all_settings(connection, *((target.scope, target.id) if target else ()))
    shown = table("For", "Field", "Locked", last="Value")
    for row in found:
        whose = plain(row.target) if row.target is not None else f"{short(row.target_id)} (gone)"
        shown.add_row(f"{row.scope} {whose}", row.field, "yes" if row.locked else "", _shown(row.value))
    nothing = "No setting yet: provisioner settings set model PROVIDER/MODEL --board BOARD"
    show_list([dict(row._mapping) for row in found], shown, nothing=nothing, as_json=as_json)


def _show_agent(connection: Connection, agent_id: UUID, *, as_json: bool) -> None:
    rows = [Setting(**row._mapping) for row in settings_concerning(connection, agent_id)]
    on_record = fields_on_record(connection, agent_id)
    counts = counting(rows)
    fields = sorted(
        name for name in {*counts, *on_record} if name in counts or not on_record[name].made_object
    )
    documents = [_document(name, counts.get(name), on_record.get(name)) for name in fields]
    shown = table("Field", "From", last="Value")
    for each in documents:
        value = _shown(each["value"]) if each["scope"] else "unset, not yet taken back"
        before = each["had"]
        if each["written"]:
            value += f" (before: {'nothing' if before is None else _shown(before)})"
        else:
            value += " (not written yet)"
        shown.add_row(each["field"], f"{each['scope'] or ''}{', locked' if each['locked'] else ''}", value)
    nothing = "No setting concerns this agent: provisioner settings set FIELD VALUE --agent AGENT"
    show_list(documents, shown, nothing=nothing, as_json=as_json)
    if not as_json:
        for row in sorted(rows, key=lambda each: each.rank):
            for name in leaves_of(row.field, row.value):
                by = next((other for key, other in counts.items() if overlap(key, name)), None)
                if by is not None and by.scope != row.scope:
                    note(f"{name} of the {row.scope} does not count: the {by.scope} sets {by.field}.")


def _document(name: str, setting: Setting | None, record: FieldRecord | None) -> dict[str, Any]:
    return {
        "field": name,
        "value": setting.value if setting else None,
        "scope": setting.scope if setting else None,
        "locked": setting.locked if setting else False,
        "written": record is not None,
        "had": record.had if record else None,
    }


def _fields(name: str, given: str) -> dict[str, Any]:
    """The fields that a value sets. Raises WrongUseError; its sentence never holds the value."""
    if len(given) > _LONGEST_VALUE:
        raise WrongUseError(f"The value of {name!r} is longer than {_LONGEST_VALUE} characters: shorten it.")
    try:
        value = json.loads(given, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        value = given
    try:
        return _checked(name, value)
    except RecursionError:
        raise WrongUseError(f"The value of {name!r} is nested too deep: write it more simply.") from None


def _checked(name: str, value: Any) -> dict[str, Any]:
    fields = leaves_of(name, value)
    for field, each in fields.items():
        if fault := field_fault(field) or value_fault(field, each):
            raise WrongUseError(fault)
    return fields


def _no_constant(name: str) -> Any:
    raise ValueError(name)  # NaN and Infinity, which are not JSON, are texts


def _locked_above(connection: Connection, target: Target, wanted: Mapping[str, Any]) -> dict[str, Setting]:
    """The wanted fields of an agent that a locked setting of its board or gateway overrules."""
    if target.scope != "agent":
        return {}
    counts = counting(Setting(**row._mapping) for row in settings_concerning(connection, target.id))
    return {
        name: setting
        for name in wanted
        for other, setting in counts.items()
        if setting.scope != "agent" and overlap(name, other)
    }


def _shown(value: Any) -> str:
    return plain(json.dumps(value, ensure_ascii=False))
