"""Brings an agent's workspace to its gateway: files, heartbeat text, and the file with the token last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection

from worker.errors import PermanentError
from worker.gateway.errors import PermanentGatewayError, UnsupportedFile
from worker.provisioning.credentials import Origin, Token, commit, live_token, new_token
from worker.provisioning.file_records import forget_files, record_files
from worker.provisioning.work import Work
from worker.provisioning.workspace_files import AgentFiles, NotThereYetError, Written
from worker.workspace.credentials import find_token, with_token
from worker.workspace.plan import Action, LiveFile, Mode, RecordedFile, decide
from worker.workspace.rendering import RenderedFile, RenderedWorkspace

SCRATCH_PATIENCE_S = 30.0
"""How long a fresh agent's job waits, parked, for the heartbeat automation: 3 s on a quiet 2026.9.6."""


class ReadBackError(PermanentError):
    """The gateway took the file with the token, but gives back something else."""


@dataclass
class Delivery:
    """One agent's workspace on its way. ``records`` is what ``agent_files`` will say."""

    work: Work
    rendered: RenderedWorkspace
    files: AgentFiles
    mode: Mode
    live: dict[str, LiveFile]
    records: dict[str, RecordedFile] = field(default_factory=dict)
    unsaved: set[str] = field(default_factory=set)

    def note(self, name: str, action: Action, token: Origin | None = None) -> None:
        """Keep what became of a file, and of the token in it, for the job's row."""
        file = self.rendered.get(name)
        size = len(file.text.encode()) if file else self.rendered.unsupported.get(name, 0)
        report: dict[str, object] = {"action": action, "size": size}
        if file is not None:
            report["source_sha256"] = file.source_sha256
        if token is not None:
            report["token"] = token
        self.work.files[name] = report

    def written(self, file: RenderedFile, result: Written, locator: str | None = None) -> None:
        """Keep what the gateway now holds of a file."""
        self.records[file.name] = RecordedFile(
            file.kind, file.source_sha256, result.size, result.updated_at_ms, locator
        )
        self.unsaved.add(file.name)

    def save(self, connection: Connection) -> None:
        """Write the records that changed, in one statement."""
        changed = {name: self.records[name] for name in sorted(self.unsaved)}
        record = self.work.record
        record_files(connection, self.work.agent_id, record.gateway_id, self.work.held.job_id, changed)
        self.unsaved.clear()


def deliver(work: Work, *, first: bool) -> None:
    """Make the workspace equal to its rendering.

    ``first``: the agent is new on its gateway, so nothing in its workspace is its own (behaviour 16). Where
    the gateway refuses a file by name, the dialect is put right and the workspace rendered anew. Raises
    TransientError, PermanentError, LeaseLostError.
    """
    if first and work.record.files:
        with work.services.engine.begin() as connection:
            forget_files(connection, work.agent_id, work.record.gateway_id)
    for _ in range(len(work.dialect.files) + 1):
        try:
            _deliver(work, first=first)
            return
        except UnsupportedFile as error:
            name = error.name
            if name is None or name not in work.dialect.files:
                raise
            work.dialect = work.dialect.without_file(name)
            work.warn(f"This gateway does not take {name}.")
    raise PermanentError("The gateway refuses every file by name.")


def _deliver(work: Work, *, first: bool) -> None:
    rendered = work.render()
    files = AgentFiles(work.client, work.dialect, work.record.openclaw_id, work.fresh)
    records = {} if first else dict(work.record.files)
    live = work.services.patiently(files.live)
    mode = Mode(first, work.option("overwrite"), work.option("force_bootstrap"))
    delivery = Delivery(work, rendered, files, mode, live, records=records)
    _warn_of_sizes(work, rendered)
    carrier = next(file for file in rendered.values() if file.carries_token)
    plain = [file for file in rendered.values() if file.kind == "file" and file != carrier]
    try:
        _deliver_files(delivery, plain)
        for file in rendered.values():
            if file.kind == "scratch":
                _deliver_scratch(delivery, file)
        for name in rendered.unsupported:
            delivery.note(name, "unsupported")
        _deliver_credentials(delivery, carrier)
    finally:
        if delivery.unsaved:
            with work.services.engine.begin() as connection:
                delivery.save(connection)


def _deliver_files(delivery: Delivery, files: list[RenderedFile]) -> None:
    work = delivery.work
    decided = {file.name: _decide(delivery, file, file.text) for file in files}
    unread = [name for name, action in decided.items() if action is None]
    if unread:
        delivery.live.update(work.services.patiently(lambda: delivery.files.read(unread)))
    for file in files:
        action = decided[file.name] or _decide(delivery, file, file.text)
        assert action is not None
        decided[file.name] = action
        if action == "unchanged" and file.name in unread:
            _adopt(delivery, file)
    todo = {file.name: file for file in files if decided[file.name] in ("create", "update")}

    def attempt() -> None:
        texts = {name: file.text for name, file in todo.items()}
        if texts:
            delivery.files.write(texts, lambda name, result: delivery.written(todo.pop(name), result))

    work.services.patiently(attempt)
    for name, action in decided.items():
        assert action is not None
        delivery.note(name, action)


def _deliver_scratch(delivery: Delivery, file: RenderedFile) -> None:
    work, files = delivery.work, delivery.files
    record = delivery.records.get(file.name)
    place, content = record.locator if record else None, None
    if place is not None:
        try:
            content = work.services.patiently(lambda: files.read_scratch(str(place)))
        except PermanentGatewayError:
            place = None  # the automation was made anew: look it up
    if place is None:
        try:
            place = work.services.patiently(files.scratch_id)
        except NotThereYetError as error:
            if work.fresh and work.held.age_s < SCRATCH_PATIENCE_S:
                raise
            work.warn(f"{error} Its heartbeat text was not delivered: is its heartbeat switched off?")
            delivery.note(file.name, "unsupported")
            return
        if not work.fresh:
            content = work.services.patiently(lambda: files.read_scratch(str(place)))
    if content == file.text:
        delivery.note(file.name, "unchanged")
        return
    result = work.services.patiently(lambda: files.write_scratch(str(place), file.text))
    delivery.written(file, result, place)
    delivery.note(file.name, "update" if content is not None else "create")


def _deliver_credentials(delivery: Delivery, file: RenderedFile) -> None:
    """Write the file that carries the token, read it back, and only then make its hash the agent's."""
    work, name = delivery.work, file.name
    live, record = delivery.live.get(name), delivery.records.get(name)
    untouched = (
        live is not None
        and record is not None
        and record.updated_at_ms is not None
        and (live.size, live.updated_at_ms) == (record.size, record.updated_at_ms)
    )
    trusted = (
        untouched
        and work.record.token_hash is not None
        and (work.record.verified_hash == work.record.token_hash)
    )
    if trusted and record is not None and record.source_sha256 == file.source_sha256:
        delivery.note(name, "unchanged", token="reused")
        return
    if live is not None:
        delivery.live.update(work.services.patiently(lambda: delivery.files.read([name])))
        live = delivery.live[name]
    token = live_token(work, live.content if live else None, trusted=trusted) or new_token(work)
    text = with_token(file.text, token.plain)
    action = _decide(delivery, file, text)
    assert action is not None
    if action in ("create", "update"):
        if not token.pending:
            with work.services.engine.begin() as connection:
                work.advance(connection, "credentials")
        work.services.patiently(lambda: _write_carrier(delivery, file, text))
        _read_back(delivery, file, text, token)
    else:
        _adopt(delivery, file)
    with work.services.engine.begin() as connection:
        commit(connection, work, token)
        delivery.save(connection)
    delivery.note(name, action, token=token.origin)


def _write_carrier(delivery: Delivery, file: RenderedFile, text: str) -> None:
    delivery.files.write({file.name: text}, lambda _, result: delivery.written(file, result))


def _read_back(delivery: Delivery, file: RenderedFile, text: str, token: Token) -> None:
    back = delivery.work.services.patiently(lambda: delivery.files.read([file.name])).get(file.name)
    section = delivery.work.dialect.credentials_in == "AGENTS.md"
    if back is None or back.content != text or find_token(back.content, section=section) != token.plain:
        raise ReadBackError(f"{file.name} was written, but reads back differently: nothing was committed.")


def _decide(delivery: Delivery, file: RenderedFile, text: str) -> Action | None:
    return decide(file, text, delivery.live.get(file.name), delivery.records.get(file.name), delivery.mode)


def _adopt(delivery: Delivery, file: RenderedFile) -> None:
    """A file that was read and found equal is on record from now on."""
    live = delivery.live[file.name]
    delivery.written(file, Written(live.size, live.updated_at_ms))


def _warn_of_sizes(work: Work, rendered: Mapping[str, RenderedFile]) -> None:
    for file in rendered.values():
        if file.too_long:
            work.warn(
                f"{file.name} has {len(file.text)} characters: gateways cut an injected file near 20000."
            )
