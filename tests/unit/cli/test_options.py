"""An option is declared once, beside the field of the request that it fills."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any
from uuid import UUID

import pytest
import typer
from typer.testing import CliRunner

from tests.unit.cli.views.test_jobs import AGENT, JOB
from worker.cli import options
from worker.cli.app import load
from worker.cli.errors import WrongUseError
from worker.cli.options import Make, command_line, from_request
from worker.jobs.kinds import KINDS, Kind
from worker.jobs.requests import Option, Request

BOARD, GATEWAY = UUID(int=1), UUID(int=2)


class FakeRequest(Request):
    """A request that there is not."""

    kind = "polish"
    target = "agent_id"

    agent_id: Annotated[UUID, Option("AGENT", "Name or id of an agent.", even_without_row=True)]
    wake: Annotated[bool, Option("--no-wake", "Leave it asleep.")] = True
    shine: Annotated[bool, Option("--shine", "Make it shine.")] = False
    board_id: Annotated[UUID | None, Option("--board", "Only there.", "NAME")] = None
    title: Annotated[str | None, Option("--title", "What to call it.")] = None
    user_id: UUID | None = None


def polish(*arguments: str) -> FakeRequest | str:
    """The request that a command line makes, or what is said against it."""
    made: list[FakeRequest] = []
    app = typer.Typer()

    @app.command()
    @from_request(FakeRequest)
    def command(*, make: Make[FakeRequest], twice: bool = False) -> None:
        made.append(make(None))  # type: ignore[arg-type]

    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, list(arguments))
    return made[0] if made else str(result.exception or result.stdout)


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(_: Any, noun: str, given: str) -> UUID:
        if given not in ("Ada", "Launch"):
            raise WrongUseError(f"There is no {noun} {given!r}.")
        return AGENT if noun == "agent" else BOARD

    monkeypatch.setattr(options, "find", find)


def test_what_is_not_given_is_left_as_the_request_has_it() -> None:
    assert polish("Ada") == FakeRequest(agent_id=AGENT, requested_by="cli")


def test_an_option_turns_its_field_over_and_names_become_ids() -> None:
    given = polish("Ada", "--no-wake", "--shine", "--board", "Launch", "--title", "A", "--request", "r")
    assert given == FakeRequest(
        agent_id=AGENT,
        wake=False,
        shine=True,
        board_id=BOARD,
        title="A",
        request_id="r",
        requested_by="cli",
    )


def test_a_whole_id_without_a_row_is_taken_where_the_request_allows_it() -> None:
    assert polish(str(GATEWAY)) == FakeRequest(agent_id=GATEWAY, requested_by="cli")
    assert polish("Adam") == "There is no agent 'Adam'."
    assert polish("Ada", "--board", str(GATEWAY)) == f"There is no board {str(GATEWAY)!r}."


def test_a_blank_request_is_refused_before_anything_is_looked_up() -> None:
    assert polish("Adam", "--request", " ") == "--request needs an id that is not blank."


def test_the_help_is_the_one_beside_the_field_and_a_field_without_one_is_no_option() -> None:
    shown = str(polish("--help"))
    assert [
        one for one in ("Name or id of an agent.", "Leave it asleep.", "Make it shine.") if one not in shown
    ] == []
    assert "--twice" in shown
    assert "user" not in shown


def command_named(name: str) -> Any:
    first, *rest = name.split()
    command = load(first)
    for part in rest:
        command = command.commands[part]
    return command


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.command)
def test_every_kind_of_job_has_a_command_with_the_options_of_its_request(kind: Kind) -> None:
    taken = {
        option
        for parameter in command_named(kind.command).params
        for option in (*parameter.opts, *parameter.secondary_opts, parameter.name)
    }
    fields = options.fields_of(kind.request)
    declared = [field.option.name.split("/") if field.is_option else [field.variable] for field in fields]
    assert {name for names in declared for name in names} <= taken


@pytest.mark.parametrize(
    ("columns", "typed"),
    [
        ({"kind": "provision_agent"}, "provision Ada"),
        (
            {"kind": "provision_agent", "options": {"wake": False, "reset_session": True}},
            "provision Ada --no-wake",
        ),
        ({"kind": "update_agent", "options": {"overwrite": True, "dry_run": True}}, "update Ada --overwrite"),
        ({"kind": "update_agent", "agent_name": None}, f"update {AGENT}"),
        ({"kind": "delete_agent", "options": {"delete_row": False}}, "delete Ada --keep-row"),
        (
            {"kind": "delete_agent", "options": {"gateway_id": str(GATEWAY)}},
            'delete Ada --gateway "my gateway"',
        ),
        ({"kind": "provision_gateway_main", "agent_id": None}, 'main "my gateway"'),
        (
            {"kind": "ensure_board_lead", "agent_id": None, "options": {"agent_name": "Al"}},
            "lead Launch --name Al",
        ),
        ({"kind": "sync_gateway", "agent_id": None, "board_id": None}, 'sync "my gateway"'),
        ({"kind": "sync_gateway", "agent_id": None}, 'sync "my gateway" --board Launch'),
        (
            {
                "kind": "roll_out",
                "agent_id": None,
                "board_id": None,
                "options": {"gateways": ["east"], "include_main": False, "canary": 3},
            },
            'sync "my gateway" east --no-main --canary 3',
        ),
        (
            {"kind": "sync_heartbeats", "agent_id": None, "options": {"agent_ids": [str(AGENT)]}},
            f'heartbeats "my gateway" {AGENT}',
        ),
    ],
)
def test_a_job_is_asked_for_again_by_a_command_with_its_options(columns: dict[str, Any], typed: str) -> None:
    job = replace(JOB, **{"board_id": BOARD, "gateway_id": GATEWAY, **columns})
    assert command_line(job, but={"dry_run"}) == f"provisioner {typed}"


def test_a_job_of_an_unknown_kind_has_no_command() -> None:
    assert command_line(replace(JOB, kind="polish")) is None
