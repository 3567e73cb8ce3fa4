"""Heartbeat automations and their scratch, from 2026.8.1 on (gateways.md 8)."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Collection
from pathlib import Path

from worker.lab.simulator.refusal import JSON, Refusal
from worker.lab.simulator.roster import MAIN

MAX_SCRATCH = 262_144
"""How many characters a scratch may hold."""


class Heartbeats:
    """One cron job for each agent that runs heartbeats, kept in the state folder with its scratch.

    If any agent has a heartbeat block, only those agents run heartbeats; else the main agent does.
    """

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "cron" / "jobs.json"

    def reconcile(self, agents: dict[str, JSON], *, fenced: Collection[str] = ()) -> None:
        """Create and delete jobs to match the roster; a scratch is deleted with its job."""
        wanted = [agent_id for agent_id, entry in agents.items() if entry.get("heartbeat")]
        if not wanted and MAIN in agents:
            wanted = [MAIN]
        wanted = [agent_id for agent_id in wanted if agent_id not in fenced]
        kept = {job["agentId"]: job for job in self._load()}
        jobs = [kept.get(agent_id) or _new_job(agent_id) for agent_id in wanted]
        for job in jobs:
            every = (agents[job["agentId"]].get("heartbeat") or {}).get("every", "30m")
            job["schedule"] = {"kind": "every", "every": every}
        self._store(jobs)

    def jobs(self, agent_id: str | None, offset: int, limit: int | None) -> JSON:
        """The answer to ``cron.list``, for one agent if given; it does not contain the scratch."""
        jobs = [{name: value for name, value in job.items() if name != "scratch"} for job in self._load()]
        jobs = [job for job in jobs if agent_id in (None, job["agentId"])]
        shown = jobs[offset : None if limit is None else offset + limit]
        end = offset + len(shown)
        return {
            "jobs": shown,
            "total": len(jobs),
            "offset": offset,
            "limit": limit or len(jobs),
            "hasMore": end < len(jobs),
            "nextOffset": end if end < len(jobs) else None,
        }

    def scratch(self, job_id: str) -> JSON:
        """The answer to ``cron.scratch.get``."""
        held: JSON = self._job(self._load(), job_id)["scratch"]
        return _answer(held)

    def set_scratch(self, job_id: str, content: str | None, expected_revision: int | None) -> JSON:
        """The answer to ``cron.scratch.set``: a revision conflict is ``ok: false``, not an error."""
        jobs = self._load()
        held: JSON = self._job(jobs, job_id)["scratch"]
        if expected_revision is not None and expected_revision != held["revision"]:
            return {"ok": False, "reason": "revision-conflict", "currentRevision": held["revision"]}
        if content is not None and len(content) > MAX_SCRATCH:
            too_long = f"must not have more than {MAX_SCRATCH} characters"
            raise Refusal(f"invalid cron.scratch.set params: at /content: {too_long}")
        held |= {"content": content, "revision": held["revision"] + 1, "updatedAtMs": int(time.time() * 1000)}
        self._store(jobs)
        return {"ok": True, **_answer(held)}

    def _job(self, jobs: list[JSON], job_id: str) -> JSON:
        for job in jobs:
            if job["id"] == job_id:
                return job
        raise Refusal(
            f"Automation not found: {job_id}. List automations and retry with a current job id.",
            details={"code": "CRON_JOB_NOT_FOUND", "jobId": job_id},
        )

    def _load(self) -> list[JSON]:
        if not self._path.exists():
            return []
        jobs: list[JSON] = json.loads(self._path.read_text(encoding="utf-8"))
        return jobs

    def _store(self, jobs: list[JSON]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(jobs, ensure_ascii=False), encoding="utf-8")


def _answer(held: JSON) -> JSON:
    scratch = None
    if held["content"] is not None:
        scratch = {name: held[name] for name in ("content", "revision", "updatedAtMs")}
    return {"scratch": scratch, "currentRevision": held["revision"], "maxBytes": MAX_SCRATCH}


def _new_job(agent_id: str) -> JSON:
    now = int(time.time() * 1000)
    return {
        "id": str(uuid.uuid4()),
        "declarationKey": f"heartbeat:{agent_id}",
        "displayName": f"Heartbeat ({agent_id})",
        "agentId": agent_id,
        "name": f"heartbeat-{agent_id}",
        "enabled": True,
        "createdAtMs": now,
        "updatedAtMs": now,
        "sessionTarget": "main",
        "wakeMode": "next-heartbeat",
        "payload": {"kind": "heartbeat"},
        "effectiveAgentId": agent_id,
        "scratch": {"content": None, "revision": 0, "updatedAtMs": now},
    }
