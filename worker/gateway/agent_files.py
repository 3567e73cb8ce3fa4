"""Reads and writes an agent's files and heartbeat scratch over RPC; `worker.workspace.plan` decides which."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from worker.errors import TransientError
from worker.gateway.answers import Answer, whole_number
from worker.gateway.client import Call, GatewayClient
from worker.gateway.dialect import Dialect
from worker.gateway.errors import (
    BadAnswer,
    FileConflict,
    FileRefused,
    GatewayError,
    Refused,
    UnknownAgent,
    UnsafeFile,
)
from worker.gateway.heartbeats import AUTOMATIONS_QUERY, automation_key
from worker.printable import utf8
from worker.shutdown_flag import shutting_down
from worker.workspace.plan import LiveFile

MOST_PAGES = 200
MOST_ENTRIES = 50_000
LISTING_S = 12.0
"""Limits on listing one workspace, in pages, entries and seconds; beyond any of them the listing fails."""
FIRST_LOOK_S = 0.3
SECOND_LOOK_S = 1.0
"""Seconds to wait before the first and the second retry of a refused file; replacing a file takes less."""
_FOLDER = "it is a folder"


class NotThereYetError(TransientError):
    """The gateway does not know of a change that was just made: it has not reloaded its config file yet
    (gateways.md 4)."""

    @classmethod
    def of_agent(cls, url: str, openclaw_id: str) -> NotThereYetError:
        """The error for an agent that was registered a moment ago."""
        return cls(
            f"agent {openclaw_id} was just registered, but the gateway at {url} does not know it yet: it"
            " follows its own config in seconds; if it stays so, restart it"
        )


class WorkspaceAbsentError(NotThereYetError):
    """The gateway reports that an agent has no workspace.

    2026.9.6 reports that whenever a listing fails, for example while a file is being replaced, so callers
    believe it only after several tries.
    """


class EndlessListingError(BadAnswer):
    """A workspace listing exceeded a limit, while the gateway still reported more entries."""


@dataclass(frozen=True)
class Written:
    """What the gateway reports of a written file: its size in bytes, and its updatedAtMs."""

    size: int
    updated_at_ms: int | None


@dataclass(frozen=True)
class AgentFiles:
    """The files of one agent on one gateway.

    ``fresh``: the agent was registered a moment ago. ``shown``: the workspace folders that the gateway's
    answers have named so far. ``unanswered``: names of files whose last write was not answered, so that it
    may or may not have taken effect.
    """

    client: GatewayClient
    dialect: Dialect
    openclaw_id: str
    fresh: bool = False
    shown: set[str] = field(default_factory=set)
    unanswered: set[str] = field(default_factory=set)

    def live(self, *, may_be_empty: bool = False) -> Mapping[str, LiveFile]:
        """The existing files, by name; usually one RPC.

        ``may_be_empty``: the workspace may not exist yet. 2026.9.6 does not distinguish that from a failed
        listing, so agents.files.list is called first. Raises BadAnswer for an unreadable listing, which must
        not be taken for "no files" (rules.md 18), and WorkspaceAbsentError.
        """
        if not self.dialect.lists_workspace:
            return self._listed()
        if may_be_empty and not self._listed():
            return {}
        return self._workspace()

    def has_folder(self, name: str) -> bool:
        """Whether the workspace's top folder contains a folder of that name. Only for releases that list
        folders."""
        return any(
            entry.value.get("name") == name and entry.value.get("kind") != "file" for entry in self._entries()
        )

    def in_listing(self, payload: Mapping[str, Any]) -> Mapping[str, LiveFile] | None:
        """The files in the first answer of what `live` calls; None if there are more. Raises BadAnswer."""
        if not self.dialect.lists_workspace:
            return self._files_in(self.client.answer("agents.files.list", payload))
        answer = self.client.answer("agents.workspace.list", payload)
        entries = answer.records("entries")
        return self._files_among(entries) if answer.count("totalEntries") <= len(entries) else None

    def _listed(self) -> dict[str, LiveFile]:
        return self._files_in(self._call("agents.files.list", {}))

    def _files_in(self, answer: Answer) -> dict[str, LiveFile]:
        """The files that an answer to agents.files.list names."""
        self._note_folder(answer.value)
        files = answer.records("files")
        return {file.text("name"): _live(file) for file in files if not file.flag("missing")}

    def _workspace(self) -> dict[str, LiveFile]:
        """List the workspace; once more if the listing does not end, because an agent that changes its folder
        meanwhile may spoil the count."""
        try:
            return self._browsed()
        except EndlessListingError:
            return self._browsed()

    def _browsed(self) -> dict[str, LiveFile]:
        return self._files_among(self._entries())

    def _files_among(self, entries: Iterable[Answer]) -> dict[str, LiveFile]:
        """The files among entries of a workspace's top folder."""
        found: dict[str, LiveFile] = {}
        for entry in entries:
            name = entry.text("name")
            if entry.value.get("kind") == "file" and (name in self.dialect.files or _has_size(entry)):
                found[name] = _live(entry)
        return found

    def _entries(self) -> Iterator[Answer]:
        """Yield the entries of the workspace's top folder, page by page. Raises EndlessListingError."""
        seen, names, until = 0, set[str](), time.monotonic() + LISTING_S
        for _ in range(MOST_PAGES):
            try:
                answer = self._call("agents.workspace.list", {"offset": seen} if seen else {})
            except Refused as error:
                if "workspace directory not found" not in str(error):
                    raise
                raise WorkspaceAbsentError(
                    f"the gateway at {self.client.address.url} finds no workspace of agent"
                    f" {self.openclaw_id} at this moment"
                ) from error
            entries, total = answer.records("entries"), answer.count("totalEntries")
            new = [entry for entry in entries if entry.text("name") not in names]
            names.update(entry.text("name") for entry in new)
            yield from new
            seen += len(entries)
            if seen >= total:
                return
            if not new or len(names) > MOST_ENTRIES or time.monotonic() > until:
                break
        raise EndlessListingError(
            f"the gateway at {self.client.address.url} does not come to the end of the list of the workspace"
            f" of agent {self.openclaw_id}: it named {len(names)} files and folders, and says that there are"
            " more. Look into that folder on the gateway: if an agent fills it, move what it wrote into a"
            " folder of its own; else restart the gateway",
            method="agents.workspace.list",
        )

    def read(self, names: Sequence[str]) -> dict[str, LiveFile]:
        """Read the named files, except missing ones; one RPC each, pipelined. Raises FileRefused for a file
        that the gateway refuses twice."""
        try:
            return self._read(names)
        except UnsafeFile:
            if shutting_down.wait(FIRST_LOOK_S):
                raise
        try:
            return self._read(names)
        except UnsafeFile as error:
            raise self._refused(error) from error

    def _read(self, names: Sequence[str]) -> dict[str, LiveFile]:
        answers = self._call_many("agents.files.get", [{"name": name} for name in names])
        found = {}
        for name, answer in zip(names, answers, strict=True):
            file = answer.record("file")
            if not file.flag("missing"):
                found[name] = _content(file)
        return found

    def write(
        self,
        texts: Mapping[str, str],
        on_written: Callable[[str, Written], None],
        expected: Mapping[str, str] | None = None,
    ) -> None:
        """Write the files, pipelined, and call ``on_written`` for each one that was written.

        ``expected``: SHA-256, in hex, of what some of the files should still hold; gateways that can check
        that refuse to replace anything else (FileConflict). After the last answer, raises the first failure,
        such as UnsupportedFile or FileRefused.
        """
        failures: list[GatewayError] = []
        self.unanswered.difference_update(texts)
        hashes = expected if expected and self.dialect.fences_writes else {}
        calls = [
            Call(
                "agents.files.set",
                {"agentId": self.openclaw_id, "name": name, "content": text}
                | ({"expectedHash": hashes[name]} if name in hashes else {}),
            )
            for name, text in texts.items()
        ]
        for (name, text), answer in zip(texts.items(), self.client.call_many(calls), strict=True):
            try:
                if isinstance(answer, UnsafeFile):
                    on_written(name, self._write_again(name, text, answer))
                elif isinstance(answer, GatewayError):
                    raise answer
                else:
                    self._note_folder(answer)
                    on_written(name, self._taken(name, text, answer))
            except GatewayError as error:
                failures.append(error)
                if error.may_have_had_effect:
                    self.unanswered.add(name)
        if failures:
            raise self._error_for(failures[0])

    def _write_again(self, name: str, text: str, error: UnsafeFile) -> Written:
        """Write a file again that the gateway refused as unsafe. It says the same of a file that is being
        replaced at this moment and of one that it never writes; reading it tells which, except for a
        read-only one, which is still refused at the third try. Raises FileRefused."""
        for pause_s in (FIRST_LOOK_S, SECOND_LOOK_S):
            if shutting_down.wait(pause_s):
                raise error
            self.read([name])
            try:
                change = {"agentId": self.openclaw_id, "name": name, "content": text}
                return self._taken(name, text, self.client.call("agents.files.set", change))
            except UnsafeFile as again:
                error = again
        raise FileRefused(
            f"{name} of agent {self.openclaw_id} can be read, but not be written on the gateway at"
            f" {self.client.address.url}, at three tries: see that neither the file nor its folder is"
            " read-only there (`ls -la`, `lsattr`), and that nothing rewrites it all the time",
            name=name,
            method="agents.files.set",
        )

    def _refused(self, error: UnsafeFile) -> FileRefused:
        name = error.name or "a workspace file"
        kind = self._kind(error.name)
        cure = f"mv {name} {name}.moved" if kind == _FOLDER else _replacement(name)
        return FileRefused(
            f"the gateway at {self.client.address.url} does not touch {name} of agent {self.openclaw_id}:"
            f" {kind}, and OpenClaw reads and writes only plain files. Put a plain file in its place, or none"
            f" (in the agent's workspace there: {cure})",
            name=error.name,
            method=error.method,
        )

    def _kind(self, name: str | None) -> str:
        """What is in the place of a file that the gateway does not touch, as far as the gateway shows it."""
        unknown = "it is a link, or no plain file"
        if "agents.workspace.list" not in self.client.hello().methods:
            return unknown
        try:
            kinds = [entry.value.get("kind") for entry in self._entries() if entry.value.get("name") == name]
        except (GatewayError, NotThereYetError):
            return unknown
        if not kinds:
            return "it is a symbolic link, or no plain file"
        return _FOLDER if kinds[0] == "directory" else "it has another name too (a hard link)"

    def _taken(self, name: str, text: str, payload: Mapping[str, Any]) -> Written:
        file = self.client.answer("agents.files.set", payload).record("file")
        size = file.count("size")
        if size != len(text.encode()):
            raise BadAnswer(
                f"the gateway at {self.client.address.url} took {name} of agent {self.openclaw_id} and says"
                f" that it holds {size} bytes, not {len(text.encode())}: see its log",
                method="agents.files.set",
            )
        return Written(size, file.timestamp_ms("updatedAtMs"))

    def scratch_id(self) -> str:
        """The id of the agent's heartbeat automation, whose scratch holds the heartbeat text (gateways.md 8).

        Raises NotThereYetError if there is none: gateways create it up to 3 s after they get the agent's
        heartbeat block.
        """
        answer = self.client.query(
            "cron.list",
            {"agentId": self.openclaw_id, **AUTOMATIONS_QUERY},
        )
        for job in answer.records("jobs"):
            if job.value.get("declarationKey") == automation_key(self.openclaw_id):
                return job.text("id")
        raise NotThereYetError(f"The gateway has made no heartbeat automation for {self.openclaw_id} yet.")

    def read_scratch(self, scratch_id: str) -> LiveFile | None:
        """The heartbeat text in the automation's scratch; None if there is none."""
        return self.in_scratch(self.client.call("cron.scratch.get", {"jobId": scratch_id}))

    def in_scratch(self, payload: Mapping[str, Any]) -> LiveFile | None:
        """The heartbeat text in an answer to cron.scratch.get; None if there is none. Raises BadAnswer."""
        scratch = self.client.answer("cron.scratch.get", payload).record_or_none("scratch")
        if scratch is None:
            return None
        return replace(_content(scratch), revision=whole_number(scratch.value.get("revision")))

    def write_scratch(self, scratch_id: str, name: str, text: str, revision: int | None = None) -> Written:
        """Write the heartbeat text into the automation's scratch. ``name``: its file on other releases;
        ``revision``: the one that is replaced, None for any. Raises FileConflict if it has another by now."""
        self.unanswered.discard(name)
        change = {"jobId": scratch_id, "content": text}
        try:
            answer = self.client.query(
                "cron.scratch.set",
                change if revision is None else {**change, "expectedRevision": revision},
            )
        except GatewayError as error:
            if error.may_have_had_effect:
                self.unanswered.add(name)
            raise
        if answer.value.get("reason") == "revision-conflict":
            raise FileConflict(
                f"{name} of {self.openclaw_id} changed before it was replaced.", method="cron.scratch.set"
            )
        scratch = answer.record_or_none("scratch")
        return Written(len(text.encode()), scratch.timestamp_ms("updatedAtMs") if scratch else None)

    def _note_folder(self, answer: Mapping[str, Any]) -> None:
        folder = answer.get("workspace")
        if isinstance(folder, str) and folder and "\x00" not in folder:
            self.shown.add(utf8(folder))

    def _call(self, method: str, params: Mapping[str, Any]) -> Answer:
        try:
            return self.client.query(method, {"agentId": self.openclaw_id, **params})
        except GatewayError as error:
            raise self._error_for(error) from error

    def _call_many(self, method: str, params: Sequence[Mapping[str, Any]]) -> list[Answer]:
        calls = [Call(method, {"agentId": self.openclaw_id, **each}) for each in params]
        answers = []
        for answer in self.client.call_many(calls) if calls else []:
            if isinstance(answer, GatewayError):
                raise self._error_for(answer)
            answers.append(self.client.answer(method, answer))
        return answers

    def _error_for(self, error: GatewayError) -> GatewayError | NotThereYetError:
        if self.fresh and isinstance(error, UnknownAgent):
            return NotThereYetError.of_agent(self.client.address.url, self.openclaw_id)
        return error


def _replacement(name: str) -> str:
    return f'cp --remove-destination "$(readlink -f {name})" {name}, or rm {name}'


def _live(entry: Answer) -> LiveFile:
    return LiveFile(entry.count("size"), entry.timestamp_ms("updatedAtMs"))


def _has_size(entry: Answer) -> bool:
    return whole_number(entry.value.get("size")) is not None


def _content(file: Answer) -> LiveFile:
    content, updated_at_ms = file.text("content"), file.timestamp_ms("updatedAtMs")
    length, size, sha256 = len(content.encode()), whole_number(file.value.get("size")), file.value.get("hash")
    if size is None or size == length or "\ufffd" not in content:
        return LiveFile(length, updated_at_ms, content)
    known = sha256 if isinstance(sha256, str) else None
    return LiveFile(size, updated_at_ms, content, garbled=True, sha256=known)
