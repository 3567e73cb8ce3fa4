"""Reading and writing an agent's files and heartbeat scratch over RPC; what to write is decided elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from worker.errors import TransientError
from worker.gateway.client import Call, GatewayClient
from worker.gateway.dialect import Dialect
from worker.gateway.errors import BadAnswer, GatewayError, Refused, UnknownAgent
from worker.workspace.plan import LiveFile

_T = TypeVar("_T")


class NotThereYetError(TransientError):
    """The gateway does not know yet what it was just told: its runtime lags its file (gateway.md 4)."""

    @classmethod
    def of_agent(cls, url: str, openclaw_id: str) -> NotThereYetError:
        """Of an agent that was registered a moment ago."""
        return cls(
            f"agent {openclaw_id} was just registered, but the gateway at {url} does not know it yet: it"
            " follows its own config in seconds; if it stays so, restart it"
        )


class WorkspaceAbsentError(NotThereYetError):
    """The gateway says that there is no workspace. 2026.9.6 says so of any look that failed, at a moment when
    a file is being replaced in it, say; so it is only to be believed when it stays so."""


@dataclass(frozen=True)
class Written:
    """What the gateway says of a file it took: size in bytes, updatedAtMs."""

    size: int
    updated_at_ms: int | None


@dataclass(frozen=True)
class AgentFiles:
    """The files of one agent on one gateway. ``fresh``: the agent was registered a moment ago."""

    client: GatewayClient
    dialect: Dialect
    openclaw_id: str
    fresh: bool = False

    def live(self, *, may_be_empty: bool = False) -> Mapping[str, LiveFile]:
        """The files there are, by name; one RPC, as a rule. ``may_be_empty``: nothing may have been written
        there yet, which 2026.9.6 does not tell apart from a look that failed, so it is asked for each file
        first. Raises BadAnswer for a listing that cannot be read (behaviour 18: never taken for "no files"),
        and WorkspaceAbsentError."""
        if not self.dialect.lists_workspace:
            return self._listed()
        if may_be_empty and not self._listed():
            return {}
        return self._workspace()

    def _listed(self) -> dict[str, LiveFile]:
        answer = self._call("agents.files.list", {})
        files = answer.get("files")
        if not isinstance(files, list):
            raise _unreadable(self.openclaw_id)
        return {
            _name(f): _live(f) for f in files if not (isinstance(f, Mapping) and f.get("missing") is True)
        }

    def _workspace(self) -> dict[str, LiveFile]:
        found: dict[str, LiveFile] = {}
        seen = 0
        while True:
            try:
                answer = self._call("agents.workspace.list", {"offset": seen} if seen else {})
            except Refused as error:
                if "workspace directory not found" not in str(error):
                    raise
                raise WorkspaceAbsentError(
                    f"the gateway at {self.client.address.url} finds no workspace of agent"
                    f" {self.openclaw_id} at this moment"
                ) from error
            entries, total = answer.get("entries"), answer.get("totalEntries")
            if not isinstance(entries, list) or not isinstance(total, int):
                raise _unreadable(self.openclaw_id)
            found.update({_name(e): _live(e) for e in entries if _kind(e) == "file"})
            seen += len(entries)
            if seen >= total or not entries:
                return found

    def read(self, names: Sequence[str]) -> dict[str, LiveFile]:
        """The named files with their content, those that are missing left out; one RPC each, pipelined."""
        answers = self._call_many("agents.files.get", [{"name": name} for name in names])
        found = {}
        for name, answer in zip(names, answers, strict=True):
            file = answer.get("file")
            if not isinstance(file, Mapping):
                raise _unreadable(self.openclaw_id)
            if file.get("missing") is True:
                continue
            content = file.get("content")
            if not isinstance(content, str):
                raise _unreadable(self.openclaw_id)
            found[name] = LiveFile(len(content.encode()), _time(file), content)
        return found

    def write(self, texts: Mapping[str, str], on_written: Callable[[str, Written], None]) -> None:
        """Write the files, pipelined; ``on_written`` hears of each that the gateway took, in the order given.
        Raises the first failure after all answers are in: UnsupportedFile among them."""
        failures: list[GatewayError] = []
        calls = [
            Call("agents.files.set", {"agentId": self.openclaw_id, "name": name, "content": text})
            for name, text in texts.items()
        ]
        for (name, text), answer in zip(texts.items(), self.client.call_many(calls), strict=True):
            if isinstance(answer, GatewayError):
                failures.append(answer)
                continue
            file = answer.get("file")
            size = file.get("size") if isinstance(file, Mapping) else None
            if size != len(text.encode()):
                raise BadAnswer(
                    f"The gateway took {name} and says it holds {size} bytes of {len(text.encode())}."
                )
            on_written(name, Written(size, _time(file)))
        if failures:
            raise self._told(failures[0])

    def scratch_id(self) -> str:
        """The id of the agent's heartbeat automation, whose scratch holds the heartbeat text (gateway.md 8).
        Raises NotThereYetError: it appears up to 3 s after the agent's heartbeat block."""
        jobs = self.client.call(
            "cron.list",
            {
                "agentId": self.openclaw_id,
                "includeDisabled": True,
                "compact": True,
                "includeDeliveryPreviews": False,
            },
        ).get("jobs")
        for job in jobs if isinstance(jobs, list) else []:
            wanted = f"heartbeat:{self.openclaw_id}"
            if (
                isinstance(job, Mapping)
                and job.get("declarationKey") == wanted
                and isinstance(job.get("id"), str)
            ):
                return str(job["id"])
        raise NotThereYetError(f"The gateway has made no heartbeat automation for {self.openclaw_id} yet.")

    def read_scratch(self, scratch_id: str) -> LiveFile | None:
        """The heartbeat text as it stands, None where there is none."""
        scratch = self.client.call("cron.scratch.get", {"jobId": scratch_id}).get("scratch")
        content = scratch.get("content") if isinstance(scratch, Mapping) else None
        if not isinstance(content, str):
            return None
        return LiveFile(len(content.encode()), _time(scratch), content)

    def write_scratch(self, scratch_id: str, text: str) -> Written:
        """Write the heartbeat text."""
        answer = self.client.call("cron.scratch.set", {"jobId": scratch_id, "content": text})
        scratch = answer.get("scratch")
        return Written(len(text.encode()), _time(scratch if isinstance(scratch, Mapping) else {}))

    def _call(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self.client.call(method, {"agentId": self.openclaw_id, **params})
        except GatewayError as error:
            raise self._told(error) from error

    def _call_many(self, method: str, params: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        calls = [Call(method, {"agentId": self.openclaw_id, **each}) for each in params]
        answers = []
        for answer in self.client.call_many(calls) if calls else []:
            if isinstance(answer, GatewayError):
                raise self._told(answer)
            answers.append(answer)
        return answers

    def _told(self, error: GatewayError) -> GatewayError | NotThereYetError:
        if self.fresh and isinstance(error, UnknownAgent):
            return NotThereYetError.of_agent(self.client.address.url, self.openclaw_id)
        return error


def _name(entry: Any) -> str:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        raise BadAnswer("The gateway's list of files holds an entry without a name.")
    return str(entry["name"])


def _live(entry: Mapping[str, Any]) -> LiveFile:
    size = entry.get("size")
    if not isinstance(size, int):
        raise BadAnswer(f"The gateway's list of files gives no size for {_name(entry)}.")
    return LiveFile(size, _time(entry))


def _kind(entry: Any) -> object:
    return entry.get("kind") if isinstance(entry, Mapping) else None


def _time(entry: Mapping[str, Any] | None) -> int | None:
    value = (entry or {}).get("updatedAtMs")
    return int(value) if isinstance(value, (int, float)) else None


def _unreadable(openclaw_id: str) -> BadAnswer:
    return BadAnswer(f"The gateway's list of the files of {openclaw_id} cannot be read.")
