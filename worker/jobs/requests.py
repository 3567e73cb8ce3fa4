"""A request model for each kind of job: checks the arguments, and refuses unusable ones with a sentence."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self
from uuid import NAMESPACE_URL, UUID, uuid5

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from worker.errors import PermanentError
from worker.escaped import escaped
from worker.jobs.states import ReasonCode


class BadRequestError(PermanentError):
    """An argument is missing or invalid; the sentence names it."""

    reason_code = ReasonCode.REFUSED_REQUEST


def read_options(written: str | None) -> Any:
    """Parse the options of a row. Raises BadRequestError if they are nested too deeply or contain a number
    with too many digits.

    Options are selected as text and parsed here: if the driver parsed them, one row would fail the whole
    query.
    """
    try:
        return json.loads(written or "{}")
    except (ValueError, RecursionError) as error:
        raise BadRequestError(
            f"options cannot be read ({type(error).__name__}): make them flatter."
        ) from None


def storable(text: str) -> str:
    """Return ``text`` unchanged. Raises ValueError for a NUL or a lone surrogate, which Postgres cannot
    store."""
    if "\x00" in text:
        raise ValueError("a NUL character")
    text.encode()
    return text


DEEPEST_JSON = 50
"""How many levels of objects and lists a request's JSON may have."""


def storable_json(value: Any, depth: int = 0) -> Any:
    """Return ``value`` unchanged. Raises ValueError if part of it cannot be stored as JSON, or if it is
    nested too deeply."""
    if depth > DEEPEST_JSON:
        raise ValueError("too deep")
    if isinstance(value, str):
        storable(value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("not finite")
    elif isinstance(value, dict):
        for name, item in value.items():
            storable(name)
            storable_json(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            storable_json(item, depth + 1)
    elif not isinstance(value, float | int | None):
        raise ValueError("not JSON")
    return value


def _storable_profile(value: dict[str, Any]) -> dict[str, Any]:
    storable_json(value)
    return value


LONGEST_NAME = 500
Text = Annotated[str, AfterValidator(storable)]
Name = Annotated[Text, Field(max_length=LONGEST_NAME)]
"""Text that Postgres can index."""
MOST_FILES = 50
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,98}$")]
"""The name of a file in an agent's workspace, without a folder."""


@dataclass(frozen=True)
class Option:
    """How a field of a request appears in the CLI: as an option if ``name`` begins with dashes, else as an
    argument.

    If the field is true by default, its option turns it off, as ``--no-wake`` does. ``even_without_row``: a
    full id is accepted even if no row has it; ``bundled``: or the name of an agent that has a bundle;
    ``deleted``: one that has a bundle and no row is meant rather than one that has a row.
    """

    name: str
    help: str
    metavar: str | None = None
    even_without_row: bool = False
    bundled: bool = False
    deleted: bool = False


Now = Annotated[bool, Option("--now", "Do not wait for a sync window of the gateway.")]
Wake = Annotated[bool, Option("--no-wake", "Do not wake the agent at the end.")]
ForceBootstrap = Annotated[bool, Option("--force-bootstrap", "Write BOOTSTRAP.md again.")]
RotateTokens = Annotated[
    bool, Option("--rotate-tokens", "Issue new tokens even where the current ones are valid.")
]
Overwrite = Annotated[bool, Option("--overwrite", "Also replace the agent's own files: USER.md, MEMORY.md.")]
FileNames = Annotated[list[FileName], Field(max_length=MOST_FILES)]
OverwriteFiles = Annotated[
    FileNames,
    Option("--overwrite-file", "Replace this file even where the agent changed it; may be repeated.", "NAME"),
]
KeepFiles = Annotated[
    FileNames,
    Option("--keep-file", "Keep the agent's text where this file is a conflict; may be repeated.", "NAME"),
]
Diff = Annotated[
    bool,
    Option(
        "--diff",
        "Show line-by-line diffs, credentials masked: of what was written, or with --dry-run of what would"
        " be.",
    ),
]


_SINCE_0_4 = frozenset({"overwrite_files", "keep_files", "past_roll_outs"})
_LATER = _SINCE_0_4 | {"without_bundle", "only_orphan", "now", "in_window"}
SCHEDULE, ROLL_OUT = "schedule", "roll-out"
"""What ``requested_by`` holds for jobs that nobody asked for at the moment."""


class Request(BaseModel):
    """A request for a job. Its options are all fields except the target, request_id and requested_by."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    kind: ClassVar[str]
    target: ClassVar[str]
    destroys: ClassVar[bool] = False
    """The job deletes by default, so unknown options are refused: one may have been meant to prevent that."""
    beside_target: ClassVar[tuple[str, ...]] = ()
    """Further columns of ``jobs`` that hold arguments of such a request."""
    request_id: Annotated[
        Name | None, Option("--request", "Idempotency key: repeating it returns the existing job.", "ID")
    ] = None
    requested_by: Text | None = None
    webhook: Annotated[
        Name | None, Option("--webhook", "Call this webhook of the organization when the job ends.", "NAME")
    ] = None

    @property
    def target_id(self) -> UUID:
        """The agent, board or gateway that the job is about."""
        value = getattr(self, self.target)
        assert isinstance(value, UUID)
        return value

    def places(self) -> dict[str, UUID | None]:
        """The columns of ``jobs`` that say what the job is about. A request_id is unique per kind and value
        of the first of them that is set."""
        named = {name: getattr(self, name) for name in self.beside_target}
        return {"agent_id": None, "board_id": None, "gateway_id": None, **named, self.target: self.target_id}

    def options(self) -> dict[str, Any]:
        """The options as JSON, defaults included, so that equal requests compare equal."""
        options = self.model_dump(mode="json", exclude={*Request.model_fields, self.target})
        # Older workers do not know these options, and a request without them is as it always was.
        return {name: value for name, value in options.items() if value or name not in _LATER}

    @classmethod
    def parse(cls, arguments: Mapping[str, Any]) -> tuple[Self, list[str]]:
        """Parse a request; also return the names of unknown arguments, which only cause a warning.

        Raises BadRequestError, whose message names every wrong argument.
        """
        unknown = sorted(set(arguments) - set(cls.model_fields))
        try:
            request = cls.model_validate(dict(arguments))
            both = request._named_twice()
            if not both:
                return request, unknown
            faults = [f"overwrite_files and keep_files both name {', '.join(both)}"]
        except ValidationError as error:
            faults = [_fault(str(e["loc"][0]), e["type"], e.get("input")) for e in error.errors()]
        raise BadRequestError(f"tasks.{cls.kind}: {'; '.join(faults)}.")

    def _named_twice(self) -> list[str]:
        overwritten = set(getattr(self, "overwrite_files", ()))
        return sorted(overwritten & set(getattr(self, "keep_files", ())))

    @classmethod
    def require_known_options(cls, options: object) -> None:
        """Raise BadRequestError if a row's ``options`` are no object or contain unknown names. Does nothing
        unless the job ``destroys``."""
        if not cls.destroys or options is None:
            return
        if not isinstance(options, Mapping):
            raise BadRequestError(
                f"tasks.{cls.kind}: options must be an object, not {type(options).__name__}."
            )
        unknown = sorted(set(options) - set(cls.model_fields))
        if unknown:
            known = sorted(set(cls.model_fields) - {*Request.model_fields, cls.target})
            raise BadRequestError(
                f"tasks.{cls.kind}: nothing was deleted, because there is no option"
                f" {escaped(', '.join(unknown), 200)}: the options are {', '.join(known)}."
            )


class ProvisionAgent(Request):
    """``tasks.provision_agent``: provision a board agent on its gateway."""

    kind = "provision_agent"
    target = "agent_id"

    agent_id: Annotated[UUID, Option("AGENT", "Name or id of a board agent.")]
    reset_session: Annotated[bool, Option("--no-reset", "Keep the agent's session.")] = True
    wake: Wake = True
    force_bootstrap: ForceBootstrap = False
    overwrite_files: OverwriteFiles = []
    keep_files: KeepFiles = []
    user_id: UUID | None = None
    deliver_wakeup: bool = True
    now: Now = False


class UpdateAgent(Request):
    """``tasks.update_agent``: bring an agent up to date with its templates; ``dry_run`` only reports
    changes."""

    kind = "update_agent"
    target = "agent_id"

    agent_id: Annotated[UUID, Option("AGENT", "Name or id of an agent.")]
    dry_run: Annotated[bool, Option("--dry-run", "Show what an update would change, and change nothing.")] = (
        False
    )
    diff: Diff = False
    rotate_tokens: RotateTokens = False
    overwrite: Overwrite = False
    overwrite_files: OverwriteFiles = []
    keep_files: KeepFiles = []
    force_bootstrap: ForceBootstrap = False
    reset_session: Annotated[
        bool,
        Option("--reset-session", "Start a new session: some releases show an agent new files only then."),
    ] = False
    wake: Wake = True
    user_id: UUID | None = None
    deliver_wakeup: bool = True
    now: Now = False


class DeleteAgent(Request):
    """``tasks.delete_agent``: take an agent off its gateway and delete its row. ``gateway_id`` is for an
    agent whose row is gone already; with ``only_orphan`` nothing is done to one that has a row (again)."""

    kind = "delete_agent"
    target = "agent_id"
    destroys = True

    agent_id: Annotated[
        UUID,
        Option("AGENT", "Name or id of an agent; the full id if its row is gone.", even_without_row=True),
    ]
    gateway_id: Annotated[UUID | None, Option("--gateway", "The agent's gateway, if its row is gone.")] = None
    delete_files: Annotated[
        bool | None,
        Option(
            "--delete-files/--keep-files",
            "Delete its workspace, or leave it on disk. One that was adopted is left by default.",
        ),
    ] = None
    delete_session: Annotated[bool, Option("--keep-session", "Leave its session.")] = True
    delete_row: Annotated[bool, Option("--keep-row", "Leave its row in the database.")] = True
    without_bundle: Annotated[
        bool, Option("--no-bundle", "Keep no bundle of it, from which it could be restored for 30 days.")
    ] = False
    only_orphan: bool = False
    now: Now = False


class ExportAgent(Request):
    """``tasks.export_agent``: make a bundle of an agent, and change nothing (rules.md 52)."""

    kind = "export_agent"
    target = "agent_id"

    agent_id: Annotated[UUID, Option("AGENT", "Name or id of an agent.", even_without_row=True, bundled=True)]


class RestoreAgent(Request):
    """``tasks.restore_agent``: make an agent anew from its bundle, under its id, and provision it (rules.md
    52).
    ``bundle_id``: null for the best one of the agent; ``board_id``: the board that a bundle of another agent
    joins as the agent ``agent_id``; null for the agent's own."""

    kind = "restore_agent"
    target = "agent_id"
    beside_target = ("board_id",)

    agent_id: Annotated[
        UUID,
        Option(
            "AGENT",
            "Name or id of an agent that was deleted.",
            even_without_row=True,
            bundled=True,
            deleted=True,
        ),
    ]
    bundle_id: Annotated[
        UUID | None, Option("--bundle", "This bundle; without it the newest that holds its files.", "ID")
    ] = None
    allow_masked: Annotated[
        bool,
        Option(
            "--allow-masked", "Also restore files and columns in which a secret was masked, marks and all."
        ),
    ] = False
    wake: Wake = True
    board_id: UUID | None = None
    user_id: UUID | None = None
    deliver_wakeup: bool = True
    now: Now = False


class ProvisionGatewayMain(Request):
    """``tasks.provision_gateway_main``: create or repair a gateway's main agent, and provision it."""

    kind = "provision_gateway_main"
    target = "gateway_id"

    gateway_id: Annotated[UUID, Option("GATEWAY", "Name or id of a gateway.")]
    rotate_tokens: Annotated[
        bool, Option("--rotate-tokens", "Issue a new token even if the current one is valid.")
    ] = False
    wake: Wake = True
    user_id: UUID | None = None
    reset_session: bool = True
    deliver_wakeup: bool = True
    now: Now = False


class EnsureBoardLead(Request):
    """``tasks.ensure_board_lead``: create or repair a board's lead, and enqueue the job that provisions
    it."""

    kind = "ensure_board_lead"
    target = "board_id"

    board_id: Annotated[UUID, Option("BOARD", "Name or id of a board.")]
    agent_name: Annotated[
        Text | None,
        Option("--name", "Its name, in place of 'Lead Agent'. A lead that has another name is renamed."),
    ] = None
    identity_profile: Annotated[dict[str, Any], AfterValidator(_storable_profile)] | None = None
    user_id: UUID | None = None
    now: Now = False


class SyncHeartbeats(Request):
    """``tasks.sync_heartbeats``: apply the heartbeat settings of a gateway's agents in one config change.
    ``agent_ids``: only of these agents; null for all."""

    kind = "sync_heartbeats"
    target = "gateway_id"

    gateway_id: Annotated[UUID, Option("GATEWAY", "Name or id of a gateway.")]
    agent_ids: Annotated[
        list[UUID] | None, Option("AGENTS", "Names or ids; all agents if none is given.", "AGENT")
    ] = None
    now: Now = False


class SyncGateway(Request):
    """``tasks.sync_gateway``: bring the agents of a gateway, or of one of its boards, up to date with their
    templates. ``agent_ids``: only these of them; null for all; ``past_roll_outs``: a dry run that looks at
    what is held for a roll-out that has ended as if it were not; ``in_window``: it waits for a sync window
    whatever it changes, because its agents will be woken."""

    kind = "sync_gateway"
    target = "gateway_id"
    beside_target = ("board_id",)

    gateway_id: Annotated[UUID, Option("GATEWAY", "Name or id of a gateway.")]
    board_id: Annotated[
        UUID | None, Option("--board", "Only this board's agents: its name or id.", "NAME")
    ] = None
    include_main: Annotated[bool, Option("--no-main", "Leave the gateway's main agent out.")] = True
    dry_run: Annotated[
        bool, Option("--dry-run", "Show what a sync would change; exit 1 if anything would.")
    ] = False
    diff: Diff = False
    reset_sessions: Annotated[bool, Option("--reset-sessions", "Start a new session for every agent.")] = (
        False
    )
    rotate_tokens: RotateTokens = False
    force_bootstrap: ForceBootstrap = False
    overwrite: Overwrite = False
    overwrite_files: OverwriteFiles = []
    keep_files: KeepFiles = []
    user_id: UUID | None = None
    agent_ids: list[UUID] | None = None
    past_roll_outs: bool = False
    in_window: bool = False
    now: Now = False


LONGEST_WAIT_S = 30 * 86_400.0
"""Limit on the seconds for which a ring's agents may be waited for."""
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds_of(given: str) -> float:
    """A time such as 90s, 10m, 2h or 1d, in seconds. Raises ValueError."""
    found = re.fullmatch(r"(\d{1,6})\s*([smhd])", given.strip())
    wait_s = float("nan") if found is None else int(found[1]) * float(_UNITS_S[found[2]])
    if not 0 <= wait_s <= LONGEST_WAIT_S:
        raise ValueError("no time")
    return wait_s


def _wait(given: str) -> str:
    seconds_of(given)
    return given


@dataclass(frozen=True)
class Canary:
    """Who is in the first ring: ``count`` agents, ``percent`` of those that change, or these ``agents``."""

    count: int | None = None
    percent: float | None = None
    agents: tuple[UUID, ...] = ()


def canary_of(given: str) -> Canary:
    """The meaning of ``3``, ``5%`` or ids of agents with commas in between. Raises ValueError."""
    written = given.strip()
    if re.fullmatch(r"\d{1,5}", written) and int(written) > 0:
        return Canary(count=int(written))
    if re.fullmatch(r"\d{1,2}(\.\d{1,3})?%|100%", written) and float(written[:-1]) > 0:
        return Canary(percent=float(written[:-1]))
    return Canary(agents=tuple(dict.fromkeys(UUID(each.strip()) for each in written.split(","))))


def _canary(given: str) -> str:
    canary_of(given)
    return given


class RollOut(SyncGateway):
    """``tasks.roll_out``: what a sync of one or more gateways would change, ring by ring (rules.md 56).

    ``gateways``: those beside ``gateway_id``; ``canary``: who is in the first ring, as `canary_of` reads it;
    ``wait``: for how long a run of each agent is waited for, as `seconds_of` reads it; ``max_failed``: after
    how many failed agents it stops.
    """

    kind = "roll_out"

    gateways: Annotated[
        list[UUID] | None, Option("GATEWAYS", "Further gateways; only with --canary.", "GATEWAYS")
    ] = None
    canary: Annotated[
        Text,
        AfterValidator(_canary),
        Option(
            "--canary",
            "Roll out in rings: 3 or 5% or these agents first (NAME,NAME), then steps of growing size.",
            "3|5%|NAMES",
        ),
    ]
    wait: Annotated[
        Text,
        AfterValidator(_wait),
        Option(
            "--wait", "How long to wait in each ring for a good run of each agent; 10m by default.", "TIME"
        ),
    ] = "10m"
    max_failed: Annotated[
        int, Field(ge=1, le=100_000), Option("--max-failed", "Stop once so many failed; 1 by default.", "N")
    ] = 1
    accept_unknown: Annotated[
        bool, Option("--accept-unknown", "An agent of which no run was seen in time has not failed.")
    ] = False
    probe: Annotated[
        bool, Option("--probe", "Send each agent one message, instead of waiting for it to run by itself.")
    ] = False
    rollback_on_failure: Annotated[
        bool, Option("--rollback-on-failure", "If it stops, take back what it has changed.")
    ] = False


DiffOfAdoption = Annotated[
    bool,
    Option(
        "--diff",
        "Show line-by-line diffs, credentials masked: of what would be written, or with --yes of what was.",
    ),
]
WakeAdopted = Annotated[bool, Option("--wake", "Wake the agent at the end; by default it is not disturbed.")]
Look = Annotated[bool, Option("--yes", "Do it. Without this, what would be done is only shown.")]


class AdoptAgent(Request):
    """``tasks.adopt_agent``: take an agent under care that is on its gateway already (rules.md 48). It
    becomes the agent ``agent_id``, or a new one of the board ``board_id``."""

    kind = "adopt_agent"
    target = "gateway_id"
    beside_target = ("agent_id", "board_id")

    gateway_id: Annotated[UUID, Option("GATEWAY", "Name or id of a gateway.")]
    openclaw_id: Annotated[
        Name,
        Option("OPENCLAW_ID", "The agent's id on the gateway; if left out, all not yet under care."),
    ]
    agent_id: Annotated[UUID | None, Option("--agent", "Adopt it as this agent: its name or id.", "NAME")] = (
        None
    )
    board_id: Annotated[
        UUID | None, Option("--board", "Adopt it as a new agent of this board: its name or id.", "NAME")
    ] = None
    dry_run: Look = True
    overwrite_files: OverwriteFiles = []
    diff: DiffOfAdoption = False
    wake: WakeAdopted = False
    deliver_wakeup: bool = True
    user_id: UUID | None = None
    now: Now = False


class AdoptGateway(Request):
    """``tasks.adopt_gateway``: take all agents of a gateway under care that nobody cares for, as new agents
    of the board, by a job of ``tasks.adopt_agent`` for each."""

    kind = "adopt_gateway"
    target = "gateway_id"
    beside_target = ("board_id",)

    gateway_id: Annotated[UUID, Option("GATEWAY", "Name or id of a gateway.")]
    board_id: Annotated[UUID, Option("--board", "The board that they become agents of.", "NAME")]
    dry_run: Look = True
    overwrite_files: OverwriteFiles = []
    diff: DiffOfAdoption = False
    wake: WakeAdopted = False
    deliver_wakeup: bool = True
    user_id: UUID | None = None
    now: Now = False


UndoneJob = Annotated[
    UUID | None,
    Option("--job", "Take back what this job changed; if left out, what changed the agent last.", "JOB"),
]


class Rollback(Request):
    """``tasks.rollback``: bring back what a job replaced in an agent's files, and have the agent keep it
    (rules.md 51). ``undo_job_id``: the job; null for the last one that changed the agent. ``release``: end
    what earlier rollbacks have the agent keep, and touch nothing."""

    kind = "rollback"
    target = "agent_id"

    agent_id: Annotated[UUID, Option("AGENT", "Name or id of an agent.")]
    undo_job_id: UndoneJob = None
    dry_run: Annotated[
        bool, Option("--dry-run", "Show what a rollback would change, and change nothing.")
    ] = False
    diff: Diff = False
    release: Annotated[
        bool, Option("--release", "Let it follow its templates again, and touch nothing now.")
    ] = False
    overwrite_files: OverwriteFiles = []
    keep_files: KeepFiles = []
    wake: WakeAdopted = False
    deliver_wakeup: bool = True
    user_id: UUID | None = None
    now: Now = False


class RollbackJob(Request):
    """``tasks.rollback_job``: roll back all agents whose files a job changed, by a job of ``tasks.rollback``
    for each. ``gateway_id``: any gateway of that job."""

    kind = "rollback_job"
    target = "gateway_id"

    gateway_id: UUID
    undo_job_id: Annotated[UUID, Option("--job", "The job to take back.", "JOB")]
    dry_run: Annotated[
        bool, Option("--dry-run", "Show what a rollback would change, and change nothing.")
    ] = False
    diff: Diff = False
    release: bool = False
    overwrite_files: OverwriteFiles = []
    keep_files: KeepFiles = []
    wake: WakeAdopted = False
    deliver_wakeup: bool = True
    user_id: UUID | None = None
    now: Now = False


def job_id(task_id: str) -> UUID:
    """The job id for a Celery task id: the same if it is a UUID, else its uuid5 (interfaces.md 3)."""
    try:
        return UUID(task_id)
    except ValueError:
        return uuid5(NAMESPACE_URL, task_id.encode(errors="backslashreplace").decode())


def _fault(name: str, kind: str, value: object) -> str:
    if kind == "missing":
        return f"{name} is missing"
    if kind.endswith("too_long"):
        return f"{name} must be of at most {LONGEST_NAME} characters, not {len(str(value))}"
    shown = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    wanted = _WANTED.get(kind.split("_")[0], "text")
    if name in _WANTED_OF:
        wanted = _WANTED_OF[name]
    elif name in ("overwrite_files", "keep_files"):
        wanted = f"a list of at most {MOST_FILES} file names, without folders"
    if isinstance(value, dict) and kind == "value_error":
        wanted += f" and finite numbers, at most {DEEPEST_JSON} levels deep"
    return f"{name} must be {wanted}, not {shown}"


_WANTED_OF = {
    "canary": "a number from 1 on, a percentage like 5%, or ids of agents with commas in between",
    "wait": "a time of at most 30 days, like 90s, 10m or 2h",
    "max_failed": "a whole number from 1 to 100000",
}
_WANTED = {
    "uuid": "a UUID",
    "bool": "true or false",
    "list": "a list",
    "dict": "an object",
    "value": "text without NUL characters",
}
