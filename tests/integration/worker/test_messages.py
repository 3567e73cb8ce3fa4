"""Whatever lies in a queue: a row, or a line in the log and a count; the worker goes on."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis
from celery import Celery, chain, chord, group
from sqlalchemy import Row, text

from tests.integration.agents.fleet import execute, one
from tests.integration.worker.workshop import Workshop
from tests.worker_process import WorkerProcess
from worker import health
from worker.jobs.requests import job_id as job_id_of

UNSERVED = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def alone(open_workshop: Callable[[], Workshop]) -> Iterator[Workshop]:
    workshop = open_workshop()
    workshop.start_worker(WORKER_CONCURRENCY="4")
    yield workshop
    workshop.workers[0].stop()


@pytest.fixture
def worker(alone: Workshop) -> Iterator[WorkerProcess]:
    """Still the same afterwards, with nothing unacknowledged and no traceback in its log."""
    worker = alone.workers[0]
    before = len(worker.log())
    yield worker
    with redis.Redis.from_url(alone.redis_url) as client:
        alone.eventually(lambda: client.hlen("unacked") == 0, lambda: str(client.hgetall("unacked")), 15)
        assert client.llen("provisioning") == 0
    assert worker.running
    said = worker.log()[before:]
    assert "Traceback" not in said
    assert "Connection to broker lost" not in said


def framed(body: Any, headers: Any = None, **changes: Any) -> str:
    """An entry as kombu writes it, with changes."""
    text = body if isinstance(body, str) else base64.b64encode(json.dumps(body).encode()).decode()
    entry = {
        "body": text,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers if headers is not None else {},
        "properties": {
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "provisioning"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid4()),
        },
    }
    return json.dumps({**entry, **changes})


def named(name: str = "tasks.provision_agent", **more: Any) -> dict[str, Any]:
    return {"task": name, "id": str(uuid4()), "lang": "py", **more}


NONE: list[Any] = [[], {}, None]
PLACE = {"exchange": "", "routing_key": "provisioning"}
DROPPED = {
    "a word": "hello",
    "nothing": "",
    "bytes": b"\xff\xfe\x00",
    "an empty object": "{}",
    "a list": "[]",
    "a number": "7",
    "deep": "[" * 100_000,
    "a bad hint": '{"__type__": "datetime", "__value__": 1}',
    "no properties": framed(NONE, named(), properties=None),
    "no delivery tag": framed(NONE, named(), properties={"delivery_info": PLACE}),
    "no delivery info": framed(NONE, named(), properties={"delivery_tag": "x"}),
    "a strange encoding": framed(
        NONE, named(), properties={"delivery_tag": "x", "delivery_info": PLACE, "body_encoding": "rot13"}
    ),
    "headers in a list": framed(NONE, ["task"]),
    "no id": framed(NONE, {"task": "tasks.provision_agent"}),
    "an id of null": framed(NONE, {"task": "tasks.provision_agent", "id": None}),
    "no task": framed(NONE, {"id": str(uuid4())}),
    "no headers": framed(NONE),
    "another protocol": framed({"hello": "world"}),
    "a task of nobody's": framed(NONE, named("tasks.provision_agnet")),
    "a task of Celery's": framed(NONE, named("celery.backend_cleanup")),
    "a child without ids": framed(NONE, named("tasks.sync_agent")),
    "a writer of no gateway": framed([[], {"gateway_id": "x"}, None], named("tasks.write_roster")),
    "a finisher with a list": framed([[1], {"job_id": [1]}, None], named("tasks.finish_sync")),
}


@pytest.mark.usefixtures("worker")
def test_what_names_no_job_is_dropped_and_counted(alone: Workshop, worker: WorkerProcess) -> None:
    before = len(worker.log())
    with redis.Redis.from_url(alone.redis_url) as client:
        client.rpush("provisioning", *DROPPED.values())
    served = alone.send(UNSERVED)
    assert alone.ended(served).status == "failed"
    mine = len([name for name in DROPPED if not name.startswith(("a child", "a writer", "a finisher"))])
    alone.eventually(lambda: dropped(alone) == mine, lambda: f"{dropped(alone)} of {mine}")
    said = worker.log()[before:]
    assert said.count("dropped a message") == len(DROPPED)
    assert "there is no task tasks.provision_agnet here: is the name misspelt?" in said
    assert "gateway_id must be a UUID, not 'x'" in said


def dropped(workshop: Workshop) -> int:
    row = one(workshop.engine, "SELECT coalesce(sum(messages_dropped), 0) AS n FROM provisioner.workers")
    return int(row.n)


REFUSED: dict[str, tuple[Any, dict[str, Any], str | None]] = {
    "args no list": ([{"a": 1}, {}, None], {}, "args must be a list, not dict"),
    "kwargs no object": ([[], [1], None], {}, "kwargs must be an object, not list"),
    "options no object": ([[], {}, 5], {}, "its options must be an object, not int"),
    "a body of two": ([[], {}], {}, "its body is not [args, kwargs, options]"),
    "no base64": ("=!=", {}, "its body is not [args, kwargs, options]"),
    "a text": ("aGVsbG8=", {}, "its body cannot be read as JSON (DecodeError)"),
    "an eta of tomorrow": (NONE, {"eta": "tomorrow"}, "eta must be a time in ISO 8601, not 'tomorrow'"),
    "an eta far away": (NONE, {"eta": "9999-12-31T23:59:59+00:00"}, None),
    "no such compression": (NONE, {"compression": "application/x-nothing"}, "cannot be undone"),
    "expired": (NONE, {"expires": "2020-01-01T00:00:00+00:00"}, "it expired at 2020-01-01"),
    "a chain": ([[], {}, {"chain": [{"task": "x"}]}], {}, "it carries a chain, and Celery's canvas"),
    "large": (
        [[], {"agent_id": UNSERVED, "notes": "x" * 1_500_000}, None],
        {},
        "at most 1048576 bytes",
    ),
    "kwarg self": ([[], {"self": 1, "agent_id": UNSERVED}, None], {}, "There is no agent with agent_id"),
    "kwarg task": ([[], {"task": 1, "kind": 2, "agent_id": UNSERVED}, None], {}, "There is no agent with"),
    "positional": ([[UNSERVED], {}, None], {}, "send keyword arguments, not positional ones"),
    "a limit": (
        [[], {"agent_id": UNSERVED}, None],
        {"timelimit": "soon", "retries": "x", "stamped_headers": 7, "shadow": ["x"]},
        "There is no agent with agent_id",
    ),
    "half a pair": (
        [[], {"agent_id": UNSERVED, "\ud800": "\ud800", "request_id": "\ud800", "webhook": "\ud800"}, None],
        {"kwargsrepr": "\ud800", "root_id": 5, "origin": "a\nb"},
        "request_id must be text without NUL characters",
    ),
}


def test_what_names_a_job_but_cannot_be_served_is_a_failed_row(
    alone: Workshop, worker: WorkerProcess
) -> None:
    sent: dict[str, UUID] = {}
    with redis.Redis.from_url(alone.redis_url) as client:
        for name, (body, more, _) in REFUSED.items():
            headers = named(**more)
            sent[name] = UUID(headers["id"])
            if name != "an eta far away":
                client.rpush("provisioning", framed(body, headers))
    for name, (_, _, words) in REFUSED.items():
        if words is not None:
            row = alone.ended(sent[name])
            assert (row.status, words in row.error) == ("failed", True), (name, row.error)


def found(workshop: Workshop, query: str) -> Row[Any] | None:
    with workshop.engine.connect() as connection:
        return connection.execute(text(query)).first()


def first(result: Any) -> Any:
    """The result before the last one."""
    return result.parent


@pytest.mark.usefixtures("worker")
def test_celerys_canvas_is_refused_at_once(alone: Workshop) -> None:
    app: Any = Celery(broker=alone.redis_url, backend="cache+memory://")
    app.conf.task_default_queue = "provisioning"

    def request() -> Any:
        kwargs = {"agent_id": UNSERVED}
        return app.signature("tasks.provision_agent", kwargs=kwargs, immutable=True, queue="provisioning")

    after = app.signature("elsewhere.done", queue="elsewhere")
    keys = {
        "chain": first(chain(request(), request()).apply_async()).id,
        "link": request().apply_async(link=after).id,
        "link_error": request().apply_async(link_error=after).id,
        "chord": first(chord([request()], after).apply_async()).results[0].id,
    }
    for word, key in keys.items():
        row = alone.ended(UUID(key))
        assert row.status == "failed", word
        assert f"it carries a {word}, and Celery's canvas does not work here" in row.error
    several: Any = group([request(), request()]).apply_async()
    alike = [alone.ended(UUID(one.id)).error for one in several.results]
    assert alike == [f"There is no agent with agent_id {UNSERVED}."] * 2
    app.close()


_SENDER = """
import sys
from celery import Celery
from celery.exceptions import TimeoutError
url, agent_id = sys.argv[1:]
app = Celery(broker=url, backend=url)
result = app.send_task("tasks.provision_agent", kwargs={"agent_id": agent_id}, queue="provisioning")
try:
    result.get(timeout=2)
except TimeoutError:
    print(result.id, result.state)
"""


@pytest.mark.usefixtures("worker")
def test_a_sender_with_a_result_backend_waits_for_nothing(alone: Workshop) -> None:
    """docs/enqueue.md: no result is ever stored, so a caller must give a timeout. The sender is a process of
    its own, because Celery leaves the connections of a result backend open."""
    sender = [sys.executable, "-c", _SENDER, alone.redis_url, UNSERVED]
    printed = subprocess.run(sender, check=True, capture_output=True, text=True, timeout=60).stdout
    job_id, state = printed.split()
    assert state == "PENDING"
    assert alone.ended(UUID(job_id)).error == f"There is no agent with agent_id {UNSERVED}."


@pytest.mark.usefixtures("worker")
def test_a_message_that_a_full_redis_does_not_let_us_note_is_served(alone: Workshop) -> None:
    """It has left its queue by then; Celery by itself ends the worker, and the message is lost."""
    headers = named()
    body: Any = [[], {"agent_id": UNSERVED}, None]
    with redis.Redis.from_url(alone.redis_url) as client:
        filling = client.pipeline(transaction=True)
        filling.rpush("provisioning", framed(body, headers)).config_set("maxmemory", 1)
        try:
            filling.execute()
            row = alone.ended(UUID(headers["id"]), within_s=20)
        finally:
            client.config_set("maxmemory", 0)
    assert row.error == f"There is no agent with agent_id {UNSERVED}."
    assert alone.ended(alone.send(UNSERVED), within_s=20).status == "failed"


@pytest.mark.usefixtures("worker")
def test_what_expires_while_it_waits_in_its_worker_is_a_failed_row(alone: Workshop) -> None:
    app = Celery(broker=alone.redis_url)
    key = uuid4()
    kwargs = {"agent_id": UNSERVED}
    times: dict[str, Any] = {"countdown": 1, "expires": 0.5}
    app.send_task("tasks.provision_agent", kwargs=kwargs, task_id=str(key), queue="provisioning", **times)
    assert "it expired at" in alone.ended(key, within_s=10).error
    app.close()


def test_an_id_that_another_kind_of_job_has_is_said(alone: Workshop, worker: WorkerProcess) -> None:
    key = alone.send(UNSERVED)
    alone.ended(key)
    app = Celery(broker=alone.redis_url)
    kwargs = {"agent_id": UNSERVED}
    app.send_task("tasks.delete_agent", kwargs=kwargs, task_id=str(key), queue="provisioning")
    said = "its id is that of a job of kind provision_agent"
    alone.eventually(lambda: said in worker.log(), within_s=10)
    app.close()


@pytest.mark.usefixtures("worker")
def test_the_first_protocol_is_served_too(alone: Workshop) -> None:
    app = Celery(broker=alone.redis_url)
    app.conf.task_protocol = 1
    key = uuid4()
    kwargs = {"agent_id": UNSERVED}
    app.send_task("tasks.provision_agent", kwargs=kwargs, task_id=str(key), queue="provisioning")
    assert alone.ended(key).error == f"There is no agent with agent_id {UNSERVED}."
    app.close()


def test_a_task_id_cannot_forge_a_line_of_the_log(alone: Workshop, worker: WorkerProcess) -> None:
    before = len(worker.log())
    forged = "FORGED 2026-01-01 critical all is lost"
    key = f"\n{forged}\r\x1b[2K\u2028\ud800"  # a line of the log shows the first eight characters of an id
    with redis.Redis.from_url(alone.redis_url) as client:
        body: Any = [[], {"agent_id": UNSERVED, f"a\n{forged}": 1}, None]
        client.rpush("provisioning", framed(body, {"task": "tasks.provision_agent", "id": key}))
    assert alone.ended(job_id_of(key)).status == "failed"
    said = worker.log()[before:]
    assert "all is lost" in said
    assert not any(line.startswith("FORGED") for line in said.splitlines())
    assert "\x1b[2K" not in said


@pytest.mark.usefixtures("worker")
def test_what_lands_in_celerys_own_queue_is_served_and_others_tasks_stay(alone: Workshop) -> None:
    app = Celery(broker=alone.redis_url)
    key, foreign = uuid4(), str(uuid4())
    app.send_task("somebody.elses", task_id=foreign)
    app.send_task("tasks.provision_agent", kwargs={"agent_id": UNSERVED}, task_id=str(key))
    assert alone.ended(key, within_s=10).error == f"There is no agent with agent_id {UNSERVED}."
    with redis.Redis.from_url(alone.redis_url) as client:
        left = [json.loads(entry)["headers"]["id"] for entry in client.lrange("celery", 0, -1)]
        assert left == [foreign]
        client.delete("celery")
    app.close()


def test_controls_that_threads_cannot_heed_say_so(alone: Workshop) -> None:
    app = Celery(broker=alone.redis_url)
    commands: dict[str, dict[str, Any]] = {
        "time_limit": {"task_name": "tasks.provision_agent", "hard": 1},
        "rate_limit": {"task_name": "tasks.provision_agent", "rate_limit": "1/m"},
        "revoke": {"task_id": str(uuid4())},
        "terminate": {"task_id": str(uuid4()), "signal": "TERM"},
    }
    for command, arguments in commands.items():
        (said,) = app.control.broadcast(command, arguments, reply=True, timeout=3, limit=1) or []
        (answer,) = said.values()
        assert set(answer) == {"error"}, command
    app.close()


def test_while_the_database_takes_no_writes_messages_wait_in_their_queue(
    alone: Workshop, worker: WorkerProcess
) -> None:
    name = alone.engine.url.database
    before = len(worker.log())
    execute(alone.engine, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    execute(
        alone.engine,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    with redis.Redis.from_url(alone.redis_url) as client:
        keys = [alone.send(UNSERVED) for _ in range(6)]
        alone.eventually(lambda: "no work is taken" in worker.log()[before:], within_s=20)
        alone.eventually(
            lambda: client.llen("provisioning") == 6, lambda: str(client.llen("provisioning")), 20
        )
        assert client.hlen("unacked") == 0
    execute(alone.engine, f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
    for key in keys:
        assert alone.ended(key, within_s=20).error == f"There is no agent with agent_id {UNSERVED}."
    said = worker.log()[before:]
    assert said.count("no work is taken until the database serves us") == 1
    assert said.count("the database serves us again") == 1
    paused = "SELECT pauses, last_pause FROM provisioner.workers WHERE paused_s > 0"
    row = alone.eventually(lambda: found(alone, paused), within_s=5)
    assert row.pauses == 1
    assert row.last_pause  # what the session that was ended said, or what the next one did


def test_a_worker_begins_waits_and_ends_while_the_database_takes_no_writes(
    open_workshop: Callable[[], Workshop], tmp_path: Path
) -> None:
    workshop, sign = open_workshop(), tmp_path / "sign"
    name = workshop.engine.url.database
    execute(workshop.engine, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    worker = workshop.start_worker(HEALTH_FILE=str(sign))
    key = workshop.send(UNSERVED)
    said = "No work is taken until the database serves us: it takes no writes"

    def told() -> str:
        return health.fault(sign) or ""

    workshop.eventually(lambda: told().startswith(said), told, 20)
    with redis.Redis.from_url(workshop.redis_url) as client:
        assert client.llen("provisioning") == 1
        worker.terminate()
        assert worker.wait(20) == 0
        assert (client.llen("provisioning"), client.hlen("unacked")) == (1, 0)
    execute(workshop.engine, f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
    workshop.start_worker(HEALTH_FILE=str(sign))
    assert workshop.ended(key).error == f"There is no agent with agent_id {UNSERVED}."
    workshop.eventually(lambda: told() == "", told, 20)
