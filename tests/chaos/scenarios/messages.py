"""Messages come several times, late and out of order; they hold anything, or are none; and workers of two
releases serve them side by side."""

from __future__ import annotations

import ast
import base64
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID, uuid4

import hypothesis
import redis
from hypothesis import strategies

from tests.chaos.old_worker import NotMade, OldWorker, old_release
from tests.chaos.scenario import Scenario
from tests.chaos.stage import QUEUES, Stage
from tests.worker_process import WorkerProcess
from worker.jobs.kinds import INTERNAL_TASKS, KINDS, TASK_QUEUES

LOOKS_S = (0.002, 0.01)
LATEST_S = 8.0
MOST_COPIES = 4
PAUSE_S = (0.001, 0.03)
FUZZED = 300
UNFRAMED = 1_500
PREVIOUS = "v0.4.0", "3ea2e1d"
"""The last release and its commit."""
HARMLESS = ("update_agent", "sync_gateway", "export_agent")
"""Kinds that are asked for with the ids of real rows too: with ``dry_run`` they change nothing."""

Framed = dict[str, Any]


class Shuffler:
    """Copies each message that is sent, to be delivered again later, and moves some in their queue.

    What is sent and what workers take is seen as the broker sees it, so that no message is missed.
    """

    def __init__(self, client: redis.Redis, rng: random.Random) -> None:
        self.copies = 0
        self.taken: Counter[str] = Counter()
        self._client, self._rng = client, rng
        self._seen: set[str] = set()
        self._late: list[tuple[float, str, str]] = []
        self._lock = threading.Lock()
        pool: Any = client.connection_pool  # untyped in redis-py
        self._monitor = pool.get_connection()
        self._monitor.send_command("MONITOR")
        assert self._monitor.read_response() == "OK"
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def shuffle(self) -> None:
        for queue in QUEUES:
            entries = [str(entry) for entry in self._client.lrange(queue, 0, -1)]
            if entries and self._rng.random() < 0.3:
                self._move(queue, self._rng.choice(entries))
        self.deliver(until=time.monotonic())

    def deliver(self, until: float = float("inf")) -> None:
        """Deliver the copies that are due by then."""
        with self._lock:
            due = [copy for copy in self._late if copy[0] <= until]
            self._late = [copy for copy in self._late if copy[0] > until]
        for _, queue, entry in due:
            (self._client.lpush if self._rng.random() < 0.5 else self._client.rpush)(queue, entry)
            self.copies += 1

    def end(self) -> Mapping[str, int]:
        """How often each message was taken, by its tag, once all copies are delivered and done."""
        for _ in range(600):
            self.deliver()
            if not self._client.hlen("unacked") and not any(self._client.llen(queue) for queue in QUEUES):
                break
            time.sleep(0.1)
        self._client.echo(_ENOUGH)
        self._thread.join(30)
        self._monitor.disconnect()
        return {tag: self.taken[tag] for tag in self._seen}

    def _watch(self) -> None:
        while True:
            line = str(self._monitor.read_response())
            if f'"{_ENOUGH}"' in line:
                return
            words = [_unquoted(word) for word in _WORD.findall(line)]
            command = words[0].upper() if words else ""
            if command == "LPUSH" and words[1] in QUEUES:
                self._copy(words[1], words[2])
            elif command == "HSET" and words[1] == "unacked" and '"redelivered": true' not in words[3]:
                self.taken.update(_TAG.findall(words[3]))

    def _copy(self, queue: str, entry: str) -> None:
        tag = json.loads(entry)["properties"]["delivery_tag"]
        if tag in self._seen:
            return
        with self._lock:
            self._seen.add(tag)
            for _ in range(self._rng.randint(1, MOST_COPIES)):
                self._late.append((time.monotonic() + self._rng.uniform(0, LATEST_S), queue, entry))

    def _move(self, queue: str, entry: str) -> None:
        """To the other end, unless a worker has taken it by now."""
        if self._client.lrem(queue, 1, entry):
            self._client.rpush(queue, entry)


_ENOUGH = "all is delivered"
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"')
_TAG = re.compile(r'"delivery_tag": "([^"]+)"')


def _unquoted(word: str) -> str:
    """A word of MONITOR's, which quotes bytes as Python does."""
    return bytes(ast.literal_eval(f"b{word}")).decode()


def several_times(stage: Stage) -> None:
    """Each message comes two to five times, up to eight seconds late, in any order."""
    with redis.Redis.from_url(stage.workshop.redis_url, decode_responses=True) as client:
        shuffler = Shuffler(client, stage.rng)
        with stage.disturbed_by(shuffler.shuffle, LOOKS_S):
            stage.commission()
        taken = shuffler.end()
        stage.broken += shuffler.copies
    times = Counter(taken.values())
    print("TIMES", times)
    if not set(times) <= set(range(2, MOST_COPIES + 2)):
        stage.failed.append(
            f"messages were to be taken 2 to {MOST_COPIES + 1} times, and were: {dict(times)}"
        )


def fuzzed(stage: Stage) -> None:
    """Arguments of any kind for all tasks, among the commission's."""
    with redis.Redis.from_url(stage.workshop.redis_url) as client:
        waiting = arguments_of_all_tasks(stage.rng, stage)
        asked: list[UUID] = []

        def send() -> None:
            if waiting:
                task, arguments = waiting.pop()
                asked.append(uuid4())
                entry = framed(task, str(asked[-1]), arguments)
                client.lpush(TASK_QUEUES[task], json.dumps(entry))
                stage.broken += 1
                if task in INTERNAL_TASKS:
                    asked.pop()  # it is no job, and so has no row

        with stage.disturbed_by(send, PAUSE_S):
            stage.commission()
        while waiting:
            send()
    for job_id in asked:
        stage.ended(job_id)


def unframed(stage: Stage) -> None:
    """Entries that are no messages, or only half of one, among the commission's."""
    with redis.Redis.from_url(stage.workshop.redis_url) as client:

        def push() -> None:
            if stage.broken < UNFRAMED:
                client.lpush(stage.rng.choice(QUEUES), half_of_one(stage.rng))
                stage.broken += 1

        with stage.disturbed_by(push, PAUSE_S):
            stage.commission()


def _lacks_previous() -> str | None:
    try:
        old_release(*PREVIOUS)
    except NotMade as error:
        return str(error)
    return None


def two_releases(stage: Stage) -> None:
    """Workers of the last release and of this one take each other's place, as in an upgrade and back."""
    folder = old_release(*PREVIOUS)
    for _ in range(2):
        stage.start_old_worker(folder)

    def replace() -> None:
        worker = stage.rng.choice(stage.workers)
        old = isinstance(worker, OldWorker)
        start = stage.start_worker if old else lambda: stage.start_old_worker(folder)
        stage.replace(worker, WorkerProcess.stop, start)

    with stage.disturbed_by(replace, (0.0, 0.5)):
        stage.commission()


def framed(task: str, task_id: str, arguments: Any) -> Framed:
    """A message as Celery frames it."""
    body = json.dumps([[], arguments, {}])
    return {
        "body": base64.b64encode(body.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": task, "id": task_id, "retries": 0},
        "properties": {
            "correlation_id": task_id,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": TASK_QUEUES.get(task, QUEUES[0])},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid4()),
        },
    }


def half_of_one(rng: random.Random) -> bytes:
    """An entry that is not a message, or one from which something was taken or broken."""
    whole = framed(f"tasks.{rng.choice(list(KINDS))}", str(uuid4()), {})
    cut = json.dumps(whole).encode()
    part = rng.choice(list(whole))
    without = {name: value for name, value in whole.items() if name != part}
    inner = dict(whole["properties"])
    del inner[rng.choice(list(inner))]
    junk: object = rng.choice([None, 7, "x", [], {}, True, "\x00", "\ud800", 1e308])
    entries: list[Callable[[], bytes]] = [
        lambda: cut[: rng.randrange(len(cut))],
        lambda: rng.randbytes(rng.randint(0, 300)),
        lambda: json.dumps(without).encode(),
        lambda: json.dumps({**whole, "properties": inner}).encode(),
        lambda: json.dumps({**whole, part: junk}).encode(),
        lambda: json.dumps({**whole, "headers": {"task": whole["headers"]["task"], "id": junk}}).encode(),
        lambda: json.dumps(junk).encode(),
        lambda: b"[" * rng.randint(1, 20_000),
        lambda: json.dumps({**whole, "body": "%%%"}).encode(),
    ]
    return rng.choice(entries)()


def arguments_of_all_tasks(rng: random.Random, stage: Stage) -> list[tuple[str, Any]]:
    """Tasks with arguments of any kind, in which no id is a real row's unless nothing can come of it."""
    found: list[tuple[str, Any]] = []
    tasks = strategies.sampled_from([*KINDS, *(name.removeprefix("tasks.") for name in INTERNAL_TASKS)])
    real = strategies.sampled_from([str(site.fleet.gateway_id) for site in stage.sites])

    @hypothesis.seed(rng.getrandbits(64))
    @hypothesis.settings(
        max_examples=FUZZED,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(strategies.data())
    def draw(data: strategies.DataObject) -> None:
        name = data.draw(tasks)
        fields = (
            list(KINDS[name].request.model_fields) if name in KINDS else ["job_id", "agent_id", "gateway_id"]
        )
        names = strategies.sampled_from(fields) | strategies.text(max_size=20)
        arguments = data.draw(strategies.dictionaries(names, _values(), max_size=8))
        if name in HARMLESS and data.draw(strategies.booleans()):
            arguments |= {"gateway_id": data.draw(real), "dry_run": True}
        found.append((f"tasks.{name}", data.draw(strategies.just(arguments) | _values())))

    draw()
    return found


def _values() -> strategies.SearchStrategy[Any]:
    ids = strategies.uuids().map(str)
    texts = strategies.text(alphabet=strategies.characters(), max_size=50) | strategies.sampled_from(
        ["x" * 100_000, "\x00", "\ud800", "${HOME}", "{{ 7 * 7 }}", "../../etc/passwd", "AUTH_TOKEN=none"]
    )
    plain = (
        strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats() | ids | texts
    )
    return strategies.recursive(
        plain,
        lambda inner: (
            strategies.lists(inner, max_size=5)
            | strategies.dictionaries(strategies.text(max_size=10), inner, max_size=5)
        ),
        max_leaves=12,
    )


SCENARIOS = (
    Scenario("messages several times", several_times),
    Scenario("messages of any content", fuzzed),
    Scenario("messages half framed", unframed),
    Scenario("messages between releases", two_releases, lacks=_lacks_previous),
)
