"""What a worker says of its work: whom each line is about, once, to people and to machines."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest

from tests.integration.agents.fleet import execute
from tests.integration.worker.workshop import Workshop

PRINTED_BY_CELERY = "worker: Warm shutdown (MainProcess)"
LINE = re.compile(
    r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[(?P<level>\w+)\] (?P<event>.+?)"
    r"(?: job=(?P<job>[0-9a-f]{8}))?(?: agent=(?P<agent>[0-9a-f]{8}))?(?: gateway=(?P<gateway>[0-9a-f]{8}))?"
    r"(?: logger=\S+)?$"
)


@dataclass(frozen=True)
class WorkerLog:
    """The lines of one worker, and what they are about."""

    lines: list[str]
    secrets: Mapping[str, str]
    jobs: Mapping[str, UUID]
    agent: UUID
    gateway: UUID


@pytest.fixture(scope="module")
def listen(open_workshop: Callable[[], Workshop]) -> Callable[[str], WorkerLog]:
    """A worker that provisions, syncs, fails and stops, in one format."""

    def work(log_format: str) -> WorkerLog:
        workshop = open_workshop()
        worker = workshop.start_worker(LOG_FORMAT=log_format, LOG_LEVEL="INFO")
        place = workshop.place("2026.9.6")
        agent, gateway = place.fleet.agent_id, place.fleet.gateway_id
        jobs = {"provision": workshop.send(agent)}
        assert workshop.ended(jobs["provision"]).status == "succeeded"
        # An agent that needs nothing has no lines.
        execute(place.engine, "UPDATE boards SET objective = 'Anew.'")
        jobs["sync"] = workshop.ask("sync_gateway", gateway_id=gateway, include_main=False)
        assert workshop.ended(jobs["sync"]).status == "succeeded"
        secrets = {
            "the database's password": urlsplit(workshop.database_url).password or "",
            "the broker's password": urlsplit(workshop.redis_url).password or "",
            "the agent's token": place.token(agent),
            "the gateway's token": place.simulator.token,
            "a wrong token": "wrong-token-nobody-may-see",
        }
        execute(place.engine, "UPDATE gateways SET token = :t", t=secrets["a wrong token"])
        jobs["refused"] = workshop.send(agent)
        assert workshop.ended(jobs["refused"]).status == "failed"
        worker.stop()
        lines = [line for line in worker.log().splitlines() if line]
        return WorkerLog(lines, secrets, jobs, agent, gateway)

    return work


@pytest.fixture(scope="module")
def as_json(listen: Callable[[str], WorkerLog]) -> WorkerLog:
    return listen("json")


@pytest.fixture(scope="module")
def for_people(listen: Callable[[str], WorkerLog]) -> WorkerLog:
    return listen("console")


def events(said: WorkerLog) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.lines if line != PRINTED_BY_CELERY]


def test_json_is_one_object_a_line_with_time_level_and_event(as_json: WorkerLog) -> None:
    assert as_json.lines.count(PRINTED_BY_CELERY) == 1
    assert all(event.keys() >= {"timestamp", "level", "event"} for event in events(as_json))


def test_every_line_about_a_job_names_its_agent_and_gateway(as_json: WorkerLog) -> None:
    for name, job in as_json.jobs.items():
        of_job = [event for event in events(as_json) if event.get("job") == str(job)]
        assert of_job, name
        assert {event.get("gateway") for event in of_job} == {str(as_json.gateway)}
        wanted = {str(as_json.agent)} | ({None} if name == "sync" else set())
        assert {event.get("agent") for event in of_job} == wanted


def test_the_rosters_lines_name_the_gateway_and_nobody_elses_job(as_json: WorkerLog) -> None:
    rosters = [event for event in events(as_json) if event["event"].startswith("roster written")]
    assert [(event["gateway"], event.get("job")) for event in rosters] == [(str(as_json.gateway), None)]


def test_no_line_comes_twice_and_celery_does_not_repeat_ours(as_json: WorkerLog) -> None:
    said = Counter(
        json.dumps({key: value for key, value in event.items() if key != "timestamp"}, sort_keys=True)
        for event in events(as_json)
        if "parked" not in event["event"]
    )
    assert [line for line, count in said.items() if count > 1] == []
    assert not any("received" in event["event"] for event in events(as_json))
    ends = [event for event in events(as_json) if event.get("job") == str(as_json.jobs["provision"])]
    assert [event["event"] for event in ends if "parked" not in event["event"]] == ["woken", "succeeded"]


def test_a_line_for_people_is_short_and_says_whom_it_is_about(for_people: WorkerLog) -> None:
    found = {name: [] for name in for_people.jobs}  # type: dict[str, list[re.Match[str]]]
    for line in for_people.lines:
        for name, job in for_people.jobs.items():
            if f"job={str(job)[:8]}" in line:
                match = LINE.match(line)
                assert match is not None, line
                assert match["gateway"] == str(for_people.gateway)[:8], line
                assert name == "sync" or match["agent"] == str(for_people.agent)[:8], line
                found[name].append(match)
    assert [match["event"] for match in found["provision"]][-1] == "succeeded"
    assert len(found["provision"][-1][0]) <= 81
    assert found["refused"][-1]["level"] == "warning"
    assert found["sync"]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_secret_is_said(log_format: str, as_json: WorkerLog, for_people: WorkerLog) -> None:
    said = as_json if log_format == "json" else for_people
    assert all(len(secret) >= 16 for secret in said.secrets.values())
    text = "\n".join(said.lines)
    assert [name for name, secret in said.secrets.items() if secret in text] == []
    assert str(said.agent)[:8] in text
