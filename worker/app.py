"""The Celery application: queues, Celery's settings, signals. All of Celery's machinery is here."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any
from uuid import UUID

from celery import Celery, Task, signals
from celery.utils.sysinfo import (  # type: ignore[attr-defined]  # missing from celery-types
    cpu_budget,
    is_auto_concurrency,
)
from kombu import Queue
from redis.exceptions import ResponseError

from worker import health, rights
from worker.beat import beat_schedule
from worker.broker import BrokerLook, broker_settings, look_at, most_connections
from worker.database import DATABASE_AWAY, make_engine
from worker.dispatcher import Dispatcher
from worker.errors import PermanentError
from worker.gate import gate
from worker.gateway.client import ClientPool
from worker.gateway.device import DeviceKey
from worker.jobs.kinds import QUEUES, TASK_QUEUES
from worker.jobs.outbox import PUBLISH_ERRORS
from worker.log_context import about
from worker.logs import configure_logging
from worker.masking import mask_all
from worker.messages.default_queue import move_to_our_queues
from worker.pulse import pulse
from worker.runtime.seats import Seats, share_of
from worker.runtime.services import Services
from worker.runtime.token_pool import KEPT, Mint
from worker.schema_version import NEEDED_REVISION, revision_of
from worker.settings import Settings, SettingsError, incomplete
from worker.shutdown import shutting_down
from worker.start import begin, refuse
from worker.workspace.rendering import compile_templates

log = logging.getLogger(__name__)

BREAK_OFF_S = 30.0
"""Seconds from SIGTERM until all gateway connections are closed. Jobs still at work are then parked, as after
a lost connection, so that the worker exits well before the 45 s that it is given."""


def celery_settings(config: Settings) -> dict[str, Any]:
    """Celery's settings; celery.md 3 gives the reasons."""
    return {
        **broker_settings(config.broker, config.worker_concurrency),
        "result_backend": None,
        "task_ignore_result": True,
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "task_queues": [Queue(name) for name in QUEUES],
        "task_default_queue": "control",
        "task_routes": {name: {"queue": queue} for name, queue in TASK_QUEUES.items()},
        "task_create_missing_queues": False,
        "task_acks_late": True,
        "task_acks_on_failure": True,
        "task_acks_on_timeout": True,
        "task_track_started": True,
        "task_send_sent_event": True,
        "task_publish_retry_policy": {"max_retries": 2, "interval_max": 0.5},
        "worker_pool": "threads",
        "worker_concurrency": config.worker_concurrency,
        "worker_prefetch_multiplier": 1,
        "worker_consumer": "worker.reconnect:ReconnectSafeConsumer",
        "worker_send_task_events": True,
        "worker_hijack_root_logger": False,
        "worker_eta_task_limit": 1000,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "beat_scheduler": "celery.beat:Scheduler",  # in memory: all that counts is in Postgres
        "beat_schedule": beat_schedule(),
        "enable_utc": True,
        "timezone": "UTC",
    }


# The columns that `celery -A worker.app flower` lists for a task; its default hides what a task is about.
os.environ["FLOWER_TASKS_COLUMNS"] = os.environ.get("FLOWER_TASKS_COLUMNS") or (
    "name,state,kwargs,result,exception,received,runtime,uuid"
)
_start_up = begin()


class OurTask(Task[..., Any]):
    """A task whose arguments may have any name: Celery's own ``__call__`` takes none called ``self``."""

    def __call__(self, /, *positional: Any, **arguments: Any) -> Any:
        return self.run(*positional, **arguments)


app = Celery("openclaw-provisioner", task_cls=OurTask, include=["tasks", "worker.remote_control"])
app.config_from_object(celery_settings(_start_up.settings))


def settings() -> Settings:
    """The settings of this process; ``-c`` on the command line overrides ``worker_concurrency``."""
    slots = app.conf.worker_concurrency
    return _start_up.settings.model_copy(update={"worker_concurrency": slots})


@cache
def services() -> Services:
    """The services that this process's tasks use, created on first use.

    The pool holds at most one database connection for each slot and two for the dispatcher.
    """
    config = settings()
    device = DeviceKey.load_or_create(config.gateway_device_key)
    seats = Seats(share_of(config.worker_concurrency))
    engine = make_engine(config.database_url.get_secret_value(), pool_size=config.worker_concurrency + 2)
    return Services(
        config, engine, ClientPool(device), send, mint=Mint(KEPT), announce=_announce, seats=seats
    )


def send(name: str, kwargs: Mapping[str, Any], task_id: str | None) -> None:
    """Publish a message. Raises kombu's OperationalError within about a second if Redis is unreachable."""
    app.send_task(name, kwargs=dict(kwargs), task_id=task_id, ignore_result=True)


def tell(event: str, task_ids: Iterable[object], **fields: Any) -> None:
    """Send Flower an event for each of the tasks with these ids.

    Events are lost while the broker is unreachable; the jobs' rows hold the same information.
    """
    task = app.current_worker_task
    hostname = task.request.hostname if task is not None else None
    shown = mask_all(fields)
    try:
        with app.events.default_dispatcher(hostname=hostname) as dispatcher:
            for task_id in task_ids:
                dispatcher.send(event, uuid=str(task_id), **shown)
    except PUBLISH_ERRORS as error:
        log.debug("nobody was told of %s: %s", event, type(error).__name__)


def _announce(jobs: Sequence[UUID]) -> None:
    for job_id in jobs:
        with about(job=job_id):
            log.info("succeeded")
    tell("task-succeeded", jobs, result="'succeeded'", runtime=None)


@signals.setup_logging.connect
def _logging(**_: Any) -> None:
    configure_logging(settings())


@signals.celeryd_init.connect
def _begin_to_log(instance: Any = None, **_: Any) -> None:
    # Celery's warnings before it sets up logging must be ordinary log lines, and its banner is not JSON.
    configure_logging(settings())
    instance.quiet = instance.quiet or settings().log_format == "json"


@signals.celeryd_init.connect
def _count_slots(conf: Any = None, options: Mapping[str, Any] | None = None, **_: Any) -> None:
    # The connections to the database and to the broker are sized by the slots of the command line.
    slots = _slots(options or {}) or conf.worker_concurrency
    conf.worker_concurrency = slots
    conf.broker_transport_options = {
        **conf.broker_transport_options,
        "max_connections": most_connections(slots),
    }


def _slots(options: Mapping[str, Any]) -> int:
    """The number of slots that ``-c`` asks for, or 0 without it."""
    asked = options.get("concurrency")
    return cpu_budget(use_cgroup_quota=False).count if is_auto_concurrency(asked) else int(asked or 0)


@signals.celeryd_init.connect
def _check_pool(sender: Any = None, options: Mapping[str, Any] | None = None, **_: Any) -> None:
    pool = (options or {}).get("pool_cls") or (options or {}).get("pool")
    if pool is not None and "thread" not in str(pool).lower():
        name = pool if isinstance(pool, str) else str(getattr(pool, "__module__", pool)).rpartition(".")[2]
        refuse(SettingsError(f"This worker runs on threads alone: leave out --pool={name}."))
    if (options or {}).get("autoscale"):
        refuse(
            SettingsError("A pool of threads cannot be scaled: leave out --autoscale, and give -c the most.")
        )


@signals.celeryd_init.connect
def _check_queues(conf: Any = None, options: Mapping[str, Any] | None = None, **_: Any) -> None:
    # Celery itself would exit with a traceback.
    asked = (options or {}).get("queues") or ()
    known = [queue.name for queue in conf.task_queues]
    names = asked.split(",") if isinstance(asked, str) else asked
    unknown = [name for name in names if name not in known]
    if unknown:
        refuse(
            SettingsError(f"There is no queue {unknown[0]}: leave out -Q, or choose from {', '.join(known)}.")
        )


@signals.worker_init.connect
def _prepare(**_: Any) -> None:
    try:
        compile_templates(settings().templates_dir)
    except PermanentError as error:
        refuse(error)
    _heed(_start_up.broker)


def _heed(broker: BrokerLook | None) -> None:
    if broker is not None and broker.warning is not None:
        log.warning("%s", broker.warning)


def _look_again() -> None:
    """Check the broker again if it was unreachable when this process started. Raises SettingsError for faults
    that do not pass."""
    if _start_up.broker is None or _start_up.broker.away is None:
        return
    seen = look_at(settings().broker)
    if seen.fault is not None:
        raise incomplete([f"REDIS_URL: {seen.fault}"])
    _heed(seen)


def _check_schema() -> None:
    try:
        with services().engine.connect() as connection:
            revision = revision_of(connection)
    except DATABASE_AWAY as error:
        gate.shut(error)
        return
    if revision is not None and revision > NEEDED_REVISION:
        # Migrations only add, so workers can be replaced one at a time.
        log.warning("the database is newer than this worker: revision %s, not %s", revision, NEEDED_REVISION)
    elif revision != NEEDED_REVISION:
        raise SettingsError(
            f"The database stands at revision {revision}, this version needs {NEEDED_REVISION}:"
            " run `provisioner migrate`."
        )
    _warn_of_rights()


def _warn_of_rights() -> None:
    """Log a warning for each kind of job that will be refused because the role lacks a right."""
    try:
        with services().engine.connect() as connection:
            for kind in rights.VERBS:
                try:
                    rights.require_for(connection, kind)
                except PermanentError as error:
                    log.warning("%s", error)
    except DATABASE_AWAY as error:
        gate.shut(error)


_clocks: list[Dispatcher] = []


@signals.worker_ready.connect
def _start(**_: Any) -> None:
    try:
        clock = Dispatcher(services(), rescue=_rescue)
        _look_again()
        _check_schema()
        clock.look()
    except PermanentError as error:
        refuse(error)
    except Exception:
        # Celery would log it, and the worker would take messages without a dispatcher.
        log.exception("this worker cannot begin")
        raise SystemExit(1) from None
    _clocks.append(clock)
    clock.start()
    services().mint.begin()


_not_looked_into: list[str] = []


def _rescue() -> None:
    connections: Any = app.pool  # the connection pool: celery-types declares it as the pool of producers
    if _not_looked_into:
        return
    try:
        with connections.acquire(block=True, timeout=5) as connection:
            move_to_our_queues(connection.default_channel, TASK_QUEUES)
    except ResponseError as error:  # an ACL without that key, or a key of another type
        _not_looked_into.append(str(error))
        log.warning("nobody looks for our messages in Celery's default queue: %s", error)


def _consuming() -> None:
    for clock in _clocks:
        clock.consuming()


app.steps["consumer"].add(pulse(_consuming))


@signals.after_task_publish.connect(sender="tasks.run_due_schedules")
def _beating(**_: Any) -> None:
    health.touch(settings().health_file)


@signals.worker_shutting_down.connect
def _drain(**_: Any) -> None:
    shutting_down.set()
    if _clocks:
        break_off = threading.Timer(BREAK_OFF_S, services().clients.close_all)
        break_off.daemon = True
        break_off.start()


@signals.worker_shutdown.connect
def _stop(**_: Any) -> None:
    for clock in _clocks:
        clock.stop()
    if _clocks:
        services().clients.close_all()
