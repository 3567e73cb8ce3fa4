"""Reads all that a gateway shows of an agent's workspace, for its bundle (rules.md 52).

Up to 2026.7.1 that is what agents.files.list names; later releases show folders and any file in them, as
text of at most 256 KB, or as an image (gateways.md 15).
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from worker.errors import PermanentError, TransientError
from worker.gateway.agent_files import AgentFiles, NotThereYetError, WorkspaceAbsentError
from worker.gateway.answers import Answer
from worker.gateway.client import Call
from worker.gateway.errors import GatewayError, PermanentGatewayError, UnsafeFile
from worker.printable import line
from worker.workspace.bundle import MOST_BYTES, MOST_FILES, TOO_MANY, LeftOut, is_plain_path, too_large
from worker.workspace.plan import LiveFile

READ = "agents.workspace.get"
READING_S = 15.0
"""Limit on reading one workspace, in seconds: a claim has thirty. What is not read by then is listed."""
_AT_ONCE = 8
_MOST_LISTED = 2_000
_HEARTBEAT = "HEARTBEAT.md"
_NOTES = "memory"
"""The folder in which OpenClaw has agents keep notes of each day."""
_SKIPPED = {".git": "what git keeps", "node_modules": "packages that can be installed again"}


@dataclass
class ReadWorkspace:
    """``files``: contents by path; ``left_out``: what the gateway shows no content of."""

    files: dict[str, bytes] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes so far."""
        return sum(map(len, self.files.values()))

    def fits(self, path: str, size: int) -> bool:
        """Whether a file of that size fits; one that does not is listed."""
        many = len(self.files) >= MOST_FILES
        if not many and self.size + size <= MOST_BYTES:
            return True
        self.left_out.append(LeftOut(path, TOO_MANY if many else too_large(size)))
        return False


def read_workspace(files: AgentFiles) -> ReadWorkspace:
    """Read the files of an agent that is in its gateway's roster, the plain ones of every release first.

    Raises TransientError, and PermanentGatewayError if the gateway does not even list them.
    """
    found, until = ReadWorkspace(), time.monotonic() + READING_S
    try:
        live = files.live(may_be_empty=True)
    except WorkspaceAbsentError:
        live = {}
    for name, file in sorted(live.items(), key=lambda item: (item[0] not in files.dialect.files, item[0])):
        if name in files.dialect.files or not _browses(files):
            _read_listed(files, found, name, file)
    _read_heartbeat(files, found)
    if _browses(files):
        _read_folders(files, found, until)
    return found


def _browses(files: AgentFiles) -> bool:
    return files.dialect.lists_workspace and READ in files.client.hello().methods


def _read_listed(files: AgentFiles, found: ReadWorkspace, name: str, file: LiveFile) -> None:
    if not found.fits(name, file.size):
        return
    try:
        content = files.read([name]).get(name)
    except (UnsafeFile, PermanentGatewayError) as error:
        found.left_out.append(LeftOut(name, line(str(error), 300)))
        return
    if content is None:
        found.left_out.append(LeftOut(name, "it went away while it was read"))
    elif content.garbled:
        found.left_out.append(
            LeftOut(name, "it is not UTF-8, and the gateway shows it with other characters")
        )
    else:
        found.files[name] = (content.content or "").encode()


def _read_heartbeat(files: AgentFiles, found: ReadWorkspace) -> None:
    """The heartbeat text, where it is no file but the scratch of an automation."""
    if files.dialect.heartbeat_in != "scratch" or _HEARTBEAT in found.files:
        return
    try:
        scratch = files.read_scratch(files.scratch_id())
    except (NotThereYetError, PermanentGatewayError):
        return
    if scratch is not None and scratch.content and found.fits(_HEARTBEAT, scratch.size):
        found.files[_HEARTBEAT] = scratch.content.encode()


def _read_folders(files: AgentFiles, found: ReadWorkspace, until: float) -> None:
    """Every other file, folder by folder: the agent's notes first, then the nearest to the top."""
    folders, listed = [""], 0
    while folders:
        folder = folders.pop(0)
        entries = _entries(files, folder, found)
        listed += len(entries)
        wanted: dict[str, int] = {}
        for entry in entries:
            path, kind = str(entry.get("path") or ""), entry.get("kind")
            name = path.rsplit("/", 1)[-1]
            if not is_plain_path(path):
                found.left_out.append(LeftOut(line(path, 100) or "a file", "its name cannot be kept"))
            elif kind == "file" and path not in found.files and not _is_listed(found, path):
                size = entry.get("size")
                wanted[path] = size if isinstance(size, int) else 0
            elif kind != "file" and name in _SKIPPED:
                found.left_out.append(LeftOut(f"{path}/", f"it is {_SKIPPED[name]}"))
            elif kind == "directory":
                folders.insert(0 if path == _NOTES else len(folders), path)
        if time.monotonic() > until or listed > _MOST_LISTED:
            rest = [f"{one}/" for one in [folder, *folders] if one]
            found.left_out += [
                LeftOut(path, "there was no time to read it: the workspace is too large")
                for path in [*islice(wanted, 100), *rest[:100]]
            ]
            return
        _read_paths(files, found, wanted)


def _is_listed(found: ReadWorkspace, path: str) -> bool:
    return any(one.what == path for one in found.left_out)


def _entries(files: AgentFiles, folder: str, found: ReadWorkspace) -> Sequence[Mapping[str, Any]]:
    entries: list[Mapping[str, Any]] = []
    while True:
        params = {"agentId": files.openclaw_id, "path": folder, "offset": len(entries)}
        try:
            answer = files.client.query("agents.workspace.list", params)
            page, total = answer.records("entries"), answer.count("totalEntries")
        except PermanentGatewayError as error:
            if folder:
                found.left_out.append(LeftOut(f"{folder}/", line(str(error), 300)))
            return entries
        entries += [one.value for one in page]
        if not page or len(entries) >= min(total, _MOST_LISTED):
            return entries


def _read_paths(files: AgentFiles, found: ReadWorkspace, wanted: Mapping[str, int]) -> None:
    paths = [path for path, size in wanted.items() if found.fits(path, size)]
    for start in range(0, len(paths), _AT_ONCE):
        some = paths[start : start + _AT_ONCE]
        calls = [Call(READ, {"agentId": files.openclaw_id, "path": path}) for path in some]
        for path, answer in zip(some, files.client.call_many(calls), strict=True):
            try:
                content = _content(answer, files)
            except TransientError:
                raise
            except PermanentError as error:
                found.left_out.append(LeftOut(path, line(str(error), 300)))
                continue
            if found.fits(path, len(content)):
                found.files[path] = content


def _content(answer: Mapping[str, Any] | GatewayError, files: AgentFiles) -> bytes:
    """Raises GatewayError, and BadAnswer for an answer of another shape."""
    if isinstance(answer, GatewayError):
        raise answer
    file = Answer(answer, f"the gateway at {files.client.address.url}", READ).record("file")
    if file.value.get("encoding") != "base64":
        return file.text("content").encode()
    try:
        return base64.b64decode(file.text("content"), validate=True)
    except binascii.Error:
        raise file.wrong("content", "base64") from None
