"""Sessions and chat: labels, resets, runs and their idempotency keys (gateways.md 3)."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from worker.lab.simulator.refusal import JSON, Refusal
from worker.lab.simulator.release import Release

RunState = Literal["running", "failed", "done"]

GLOBAL = "global"
"""The session scope in which all agents share one main session; also that session's key."""
_LOST_SESSION_FILE = "Error: Session file path must be within sessions directory"
_NO_MODEL = "No route-compatible authentication source is configured for openai."


@dataclass(slots=True)
class Run:
    """One agent run, named by its idempotency key."""

    session_key: str
    message: str
    state: RunState = "running"
    error: str = ""
    began_ms: int = 0


class Sessions:
    """The sessions and runs of one boot of a gateway.

    Sessions are on disk, in one file per agent; runs and their keys are in memory, so a restart forgets them.
    ``reply``: what every agent's model answers; None if there is no model, so that runs fail.
    """

    def __init__(
        self,
        state_dir: Path,
        release: Release,
        *,
        reply: str | None,
        broadcast: Callable[[str, JSON], Awaitable[None]],
        settings: Callable[[], JSON],
    ) -> None:
        self._state_dir = state_dir
        self._release = release
        self._reply = reply
        self._broadcast = broadcast
        self._settings = settings
        self._runs: dict[str, Run] = {}

    def patch(self, key: str, changes: JSON) -> JSON:
        """The answer to ``sessions.patch``; a missing session is created, for any agent id."""
        key = self._canonical(key)
        label, most = changes.get("label"), self._release.longest_label
        if isinstance(label, str) and len(label) > most:
            raise Refusal(
                f"invalid sessions.patch params: at /label: must NOT have more than {most} characters"
            )
        sessions = self._load(key)
        entry = sessions.setdefault(key, self._new_entry())
        entry.update({name: value for name, value in changes.items() if value is not None})
        entry["updatedAt"] = _now_ms()
        self._store(key, sessions)
        return {"ok": True, "path": str(self._path(key)), "key": key, "entry": entry, "resolved": {}}

    def reset(self, key: str) -> JSON:
        """The answer to ``sessions.reset``: a fresh session that keeps its label.

        2026.9.6 keeps the session's id too, and marks the end of the old history in the new one.
        """
        key = self._canonical(key)
        sessions = self._load(key)
        old = sessions.get(key, {})
        kept = ("label", "sessionId") if self._release.roster_is_map else ("label",)
        entry = self._new_entry() | {"systemSent": False, "abortedLastRun": False}
        entry |= {name: old[name] for name in kept if name in old}
        sessions[key] = entry
        self._store(key, sessions)
        if self._release.roster_is_map and old:
            self._transcript(key, entry).unlink(missing_ok=True)
            text = [{"type": "text", "text": "Reset"}]
            self._say(key, {"role": "system", "content": text, "timestamp": _now_ms()})
        return {"ok": True, "key": key, "entry": entry}

    def delete(self, key: str) -> JSON:
        """The answer to ``sessions.delete``."""
        key = self._canonical(key)
        if key == GLOBAL or (self._release.keeps_main_sessions and key.endswith(":main")):
            raise Refusal(f"Cannot delete the main session ({key}).")
        sessions = self._load(key)
        deleted = sessions.pop(key, None) is not None
        if deleted:
            self._store(key, sessions)
        return {"ok": True, "key": key, "deleted": deleted, "archived": []}

    def listing(self) -> JSON:
        """The answer to ``sessions.list``, abridged."""
        found = [
            {"key": key, **entry}
            for path in sorted(self._state_dir.glob("agents/*/sessions/sessions.json"))
            for key, entry in json.loads(path.read_text(encoding="utf-8")).items()
        ]
        return {"ts": _now_ms(), "path": "(multiple)", "count": len(found), "sessions": found}

    def history(self, key: str, limit: int | None) -> JSON:
        """The answer to ``chat.history``."""
        key = self._canonical(key)
        entry = self._load(key).get(key)
        messages: list[JSON] = []
        if entry is not None and self._transcript(key, entry).exists():
            lines = self._transcript(key, entry).read_text(encoding="utf-8").splitlines()
            messages = [json.loads(line) for line in lines]
        answer: JSON = {"sessionKey": key}
        if entry is not None:
            answer["sessionId"] = entry["sessionId"]
        answer["messages"] = messages[-limit:] if limit else messages
        if self._release.roster_is_map:
            return answer | {
                "hasMore": len(messages) > len(answer["messages"]),
                "totalMessages": len(messages),
            }
        return answer | {"thinkingLevel": "low"}

    def send(self, key: str, message: str, run_id: str, *, is_default_agent: bool) -> tuple[JSON, Run | None]:
        """The answer to ``chat.send``, and the run that it started, if any.

        A key seen before is answered ``in_flight`` while its run goes on, and later with the run's end.
        """
        key = self._canonical(key)
        if self._denied(key):
            raise Refusal("send blocked by session policy")
        known = self._runs.get(run_id)
        if known is not None:
            return self._repeated(run_id, known), None
        run = self._runs[run_id] = Run(key, message)
        return {"runId": run_id, "status": "started"}, run

    def begin(self, run_id: str, run: Run, *, is_default_agent: bool) -> None:
        """Add the run's message to the history, which a real gateway does some time after its answer."""
        run.began_ms = _now_ms()
        self._note_run(run_id, run)
        if self._fails_before_history(is_default_agent) or self._ends_unheard():
            return
        if self._reply is None and not self._release.reports_failed_runs:
            return
        said = {"role": "user", "content": run.message, "timestamp": _now_ms()}
        if self._release.keys_history:
            said["idempotencyKey"] = f"{run_id}:user"
        self._say(run.session_key, said)

    async def finish(self, run_id: str, run: Run, *, is_default_agent: bool) -> None:
        """End a run and send all clients the event: ``final`` with the model's reply, or ``error``.

        Without a model, 2026.3.13 itself replies that there is none.
        """
        event: JSON = {"runId": run_id, "sessionKey": run.session_key, "seq": 1}
        if self._fails_before_history(is_default_agent):
            run.state, run.error = "failed", _LOST_SESSION_FILE
        elif self._ends_unheard():
            run.state = "done"
            return
        elif self._reply is None and self._release.reports_failed_runs:
            run.state, run.error = "failed", f"\u26a0\ufe0f Agent failed before reply: {_NO_MODEL}"
            custom = {"role": "custom", "customType": "run-failed-before-reply", "content": _NO_MODEL}
            self._say(run.session_key, custom | {"timestamp": _now_ms()})
            self._note_run(run_id, run)
        else:
            run.state = "done"
            said = self._reply or f"\u26a0\ufe0f Agent failed before reply: {_NO_MODEL}"
            answer = {"role": "assistant", "content": said, "timestamp": _now_ms(), "stopReason": "stop"}
            self._say(run.session_key, answer)
            self._note_run(run_id, run)
            await self._broadcast("chat", event | {"state": "final", "message": answer})
            return
        await self._broadcast("chat", event | {"state": "error", "errorMessage": run.error})

    def _fails_before_history(self, is_default_agent: bool) -> bool:
        """2026.2.12 runs no agent but the default one (gateways.md 3)."""
        return self._release.runs_default_agent_only and not is_default_agent

    def _ends_unheard(self) -> bool:
        """2026.2.12 without a model ends its main agent's run well, without an event or a word."""
        return self._release.runs_default_agent_only and self._reply is None

    def _repeated(self, run_id: str, run: Run) -> JSON:
        if run.state == "running":
            return {"runId": run_id, "status": "in_flight"}
        if run.state == "done":
            return {"runId": run_id, "status": "ok"}
        raise Refusal(
            run.error,
            code="UNAVAILABLE",
            payload={"runId": run_id, "status": "error", "summary": run.error},
        )

    def _note_run(self, run_id: str, run: Run) -> None:
        """Show the run in its session's entry: from 2026.8 on that tells how it ended; before, only when
        something last happened there."""
        sessions = self._load(run.session_key)
        entry = sessions.setdefault(run.session_key, self._new_entry())
        entry |= {"updatedAt": _now_ms(), "abortedLastRun": False}
        if self._release.roster_is_map:
            entry |= {"status": run.state, "hasActiveRun": run.state == "running"}
            if run.state != "running":
                entry |= {"startedAt": run.began_ms, "endedAt": _now_ms(), "lastRunId": run_id}
                entry.pop("lastRunError", None)
                entry |= {"lastRunError": run.error} if run.error else {}
        self._store(run.session_key, sessions)

    def _say(self, key: str, message: JSON) -> None:
        sessions = self._load(key)
        entry = sessions.setdefault(key, self._new_entry())
        self._store(key, sessions)
        with self._transcript(key, entry).open("a", encoding="utf-8") as file:
            file.write(json.dumps(message, ensure_ascii=False) + "\n")

    def _canonical(self, key: str) -> str:
        """Where all share one session, every agent's main key names that one."""
        shared = self._settings().get("scope") == GLOBAL and key.split(":")[-1] == "main"
        return GLOBAL if shared else key

    def _denied(self, key: str) -> bool:
        """What session.sendPolicy says: a rule that denies wins, then one that allows, then the default."""
        policy = self._settings().get("sendPolicy", {})
        actions = {
            rule.get("action", "allow")
            for rule in policy.get("rules", [])
            if _begins(key, rule.get("match", {}))
            and not {"channel", "chatType"} & set(rule.get("match", {}))
        }
        if actions:
            return "deny" in actions
        return bool(policy.get("default") == "deny")

    def _new_entry(self) -> JSON:
        return {"sessionId": str(uuid.uuid4()), "updatedAt": _now_ms()}

    def _path(self, key: str) -> Path:
        return self._state_dir / "agents" / agent_of(key) / "sessions" / "sessions.json"

    def _transcript(self, key: str, entry: JSON) -> Path:
        return self._path(key).with_name(f"{entry['sessionId']}.jsonl")

    def _load(self, key: str) -> dict[str, JSON]:
        if not self._path(key).exists():
            return {}
        sessions: dict[str, JSON] = json.loads(self._path(key).read_text(encoding="utf-8"))
        return sessions

    def _store(self, key: str, sessions: dict[str, JSON]) -> None:
        self._path(key).parent.mkdir(parents=True, exist_ok=True)
        self._path(key).write_text(json.dumps(sessions), encoding="utf-8")


def agent_of(session_key: str) -> str:
    """The agent id in ``agent:<id>:<name>``; any other key belongs to the main agent."""
    parts = session_key.split(":")
    agent_id = parts[1] if parts[0] == "agent" and len(parts) > 2 else "main"
    return agent_id.replace("/", "-").replace("..", "-")


def _now_ms() -> int:
    return int(time.time() * 1000)


def _begins(key: str, match: JSON) -> bool:
    """Whether a rule's prefixes fit a key: ``keyPrefix`` the whole one or what follows the agent's id."""
    prefix, raw = str(match.get("keyPrefix", "")), str(match.get("rawKeyPrefix", ""))
    within = key.split(":", 2)[-1]
    return key.startswith(raw) and (key.startswith(prefix) or within.startswith(prefix))
