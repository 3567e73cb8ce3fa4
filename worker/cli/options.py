"""The options of commands that enqueue a job, derived from its request."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, TypeVar
from uuid import UUID

import typer
from sqlalchemy import Connection

from worker.cli.console import argument
from worker.cli.errors import WrongUseError
from worker.cli.job_summary import JobSummary
from worker.cli.lookup import Noun, find, find_bundle_id, find_bundled_agent, find_job
from worker.jobs.kinds import KINDS
from worker.jobs.requests import Option, Request

REQUESTED_BY = "cli"

R = TypeVar("R", bound=Request)
Make = Callable[[Connection], R]
"""Builds the request from the command line. Raises WrongUseError for a name that no row has."""

_NOUNS: Mapping[str, Noun] = {
    "agent_id": "agent",
    "agent_ids": "agent",
    "board_id": "board",
    "gateway_id": "gateway",
    "gateways": "gateway",
}
"""Fields that hold ids, for which an operator may type names."""
_JOBS = frozenset({"undo_job_id"})
"""Fields that hold ids of jobs, of which an operator may type the beginning."""


def from_request(
    model: type[R], *, but: Collection[str] = (), other_help: Mapping[str, str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of its request, except for the fields in ``but``.

    They replace the command's parameter ``make``, through which it gets a ``Make``.
    ``other_help``: the help of fields that mean something else to this command.
    """
    fields = [field for field in fields_of(model) if field.name not in but]
    added = [field.parameter((other_help or {}).get(field.name)) for field in fields]

    def wrap(command: Callable[..., None]) -> Callable[..., None]:
        def make(typed: Mapping[str, Any]) -> Make[R]:
            return functools.partial(_request, model, {field: typed[field.variable] for field in fields})

        return with_parameters(command, "make", added, make)

    return wrap


def with_parameters(
    command: Callable[..., None],
    name: str,
    added: Sequence[Parameter],
    value_of: Callable[[Mapping[str, Any]], object],
) -> Callable[..., None]:
    """The command with other parameters in place of the one called ``name``, all given by keyword.

    ``value_of``: what that one gets, from what was typed for ``added``, by name.
    """

    @functools.wraps(command)
    def run(**given: Any) -> None:
        typed = {parameter.name: given.pop(parameter.name) for parameter in added}
        command(**{name: value_of(typed)}, **given)

    parameters: list[Parameter] = []
    for parameter in signature(command, eval_str=True).parameters.values():
        parameters += added if parameter.name == name else [parameter]
    run.__annotations__ = {}
    run.__dict__["__signature__"] = Signature(parameters)
    return run


def command_line(job: JobSummary, *, but: Collection[str] = ()) -> str | None:
    """The command that repeats the request, without the fields in ``but``; its arguments come first.

    None for a job of an unknown kind, and for one without a target.
    """
    kind = KINDS.get(job.kind)
    if kind is None or getattr(job, kind.target) is None:
        return None
    fields = [field for field in fields_of(kind.request) if field.name not in (*but, "request_id")]
    fields.sort(key=lambda field: field.is_option)
    return " ".join(["provisioner", kind.command, *(word for field in fields for word in field.words(job))])


def fields_of(model: type[Request]) -> Iterator[_Field]:
    """The fields that an operator may give: the request's own, then those that all requests have."""
    own = [name for name in model.model_fields if name not in Request.model_fields]
    for name in (*own, *Request.model_fields):
        field = model.model_fields[name]
        for option in field.metadata:
            if isinstance(option, Option):
                default = ... if field.is_required() else field.default
                yield _Field(name, option, default, many="list[" in str(field.annotation))


@dataclass(frozen=True)
class _Field:
    """A field of a request as an operator gives it. ``default``: ... where it must be given; ``many``: it
    takes several values."""

    name: str
    option: Option
    default: Any = field(hash=False)
    many: bool = False

    @property
    def either(self) -> tuple[str, str] | None:
        """The options that say yes and no, for a field whose default depends on what is asked for."""
        yes, slash, no = self.option.name.partition("/")
        return (yes, no) if slash else None

    @property
    def variable(self) -> str:
        """The name of the command's parameter, which typer shows for an argument."""
        return self.name if self.is_option else self.option.name.lower()

    @property
    def is_option(self) -> bool:
        """Whether it is an option, not an argument."""
        return self.option.name.startswith("--")

    def parameter(self, other_help: str | None) -> Parameter:
        """The command's parameter, as typer reads it."""
        taken: Any = str | None
        default: Any = None
        if isinstance(self.default, bool):
            taken, default = bool, False
        elif self.either is not None:
            taken = bool | None
        elif self.many:
            taken = list[str] | None
        elif self.default is ...:
            taken, default = str, Parameter.empty
        shown: dict[str, Any] = {
            "help": other_help or self.option.help,
            "metavar": self.option.metavar,
            "show_default": False,
        }
        typed = typer.Option(self.option.name, **shown) if self.is_option else typer.Argument(**shown)
        annotation: Any = Annotated[taken, typed]
        return Parameter(self.variable, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)

    def value(self, connection: Connection, typed: Any) -> Any:
        """The field's value for what was typed. Raises WrongUseError."""
        if isinstance(self.default, bool):
            return typed is not self.default  # the option of a field that is true turns it off
        if self.name in _JOBS:
            return None if typed is None else find_job(connection, typed)
        noun = _NOUNS.get(self.name)
        if self.name == "bundle_id" and typed is not None:
            return find_bundle_id(connection, typed)
        if noun is None or typed is None:
            return typed or self.default if self.many else self.default if typed is None else typed
        if isinstance(typed, list):
            return [find(connection, noun, name) for name in typed] or None
        if self.option.deleted:
            key = find_bundled_agent(connection, typed, deleted=True)
            if key is not None:
                return key
        try:
            return find(connection, noun, typed)
        except WrongUseError:
            key = _id_in(typed) if self.option.even_without_row else None
            if key is None and self.option.bundled:
                key = find_bundled_agent(connection, typed)
            if key is None:
                raise
            return key

    def words(self, job: JobSummary) -> Iterator[str]:
        """What to type for the field to get the job's value; nothing for its default."""
        value = job.options.get(self.name, self.default)
        if self.name == "webhook" and job.webhook is not None:
            value = job.webhook.name
        if isinstance(self.default, bool):
            if bool(value) is not self.default:
                yield self.option.name
            return
        if self.either is not None:
            if value is not None:
                yield self.either[0 if value else 1]
            return
        if self.name in _NOUNS and self.name.endswith("_id"):
            value = self._place(job)
        if value == self.default:
            return
        for one in value if isinstance(value, list) else filter(None, [value]):
            if self.is_option:
                yield self.option.name
            yield argument(str(one))

    def _place(self, job: JobSummary) -> str | UUID | None:
        """The agent, board or gateway that was given for the field: its name, or its id if it has none."""
        key: UUID | None = getattr(job, self.name)
        # An agent's job also shows the agent's board and gateway, which were not given.
        if self.default is not ... and job.agent_id is not None:
            key = job.options.get(self.name)
        return key and (getattr(job, f"{_NOUNS[self.name]}_name") or key)


def _request(model: type[R], typed: Mapping[_Field, Any], connection: Connection) -> R:
    """The request that was typed, its names looked up."""
    if any(
        field.name == "request_id" and given is not None and not given.strip()
        for field, given in typed.items()
    ):
        raise WrongUseError("--request needs an id that is not blank.")
    values = {field.name: field.value(connection, given) for field, given in typed.items()}
    return model(requested_by=REQUESTED_BY, **values)


def _id_in(typed: str) -> UUID | None:
    try:
        return UUID(typed)
    except ValueError:
        return None
