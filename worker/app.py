"""The Celery application: queues, Celery's settings, signals. All of Celery's machinery is here."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any
from uuid import UUID

from celery import Celery, signals
from kombu import Queue
from sqlalchemy.exc import SQLAlchemyError

from worker import health
from worker.about import about
from worker.beat import beat_schedule
from worker.clock import Clock
from worker.database import engine
from worker.drain import draining
from worker.errors import PermanentError
from worker.gateway.client import ClientPool
from worker.gateway.device import DeviceKey
from worker.jobs.outbox import PUBLISH_ERRORS
from worker.logs import configure_logging
from worker.provisioning.minting import KEPT, Mint
from worker.provisioning.services import Services
from worker.revision import NEEDED_REVISION, revision_of
from worker.settings import Settings, SettingsError, settings
from worker.workspace.rendering import compile_templates

log = logging.getLogger(__name__)

QUEUES = ("provisioning", "sync", "control")
ROUTES = {
    "tasks.provision_agent": "provisioning",
    "tasks.update_agent": "provisioning",
    "tasks.delete_agent": "provisioning",
    "tasks.provision_gateway_main": "provisioning",
    "tasks.sync_agent": "sync",
    "tasks.ensure_board_lead": "control",
    "tasks.sync_heartbeats": "control",
    "tasks.sync_gateway": "control",
    "tasks.finish_sync": "control",
    "tasks.write_roster": "control",
    "tasks.run_due_schedules": "control",
}
VISIBILITY_TIMEOUT_S = 600
"""Above any task's run time by far: bodies end within 30 s, and waits are rows, not messages."""

BREAK_OFF_S = 30.0
"""So long after SIGTERM no gateway is called any more, nor waited for: what is at work is parked, as after a
lost connection, and the worker has gone well before the 45 s that it is given."""


def celery_settings(config: Settings) -> dict[str, Any]:
    """Celery's settings and why they are so: celery.md 3."""
    return {
        "broker_url": config.redis_url.get_secret_value(),
        "result_backend": None,
        "task_ignore_result": True,
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "task_queues": [Queue(name) for name in QUEUES],
        "task_default_queue": "control",
        "task_routes": {name: {"queue": queue} for name, queue in ROUTES.items()},
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
        "worker_consumer": "worker.consumer:ReconnectSafeConsumer",
        "worker_send_task_events": True,
        "worker_hijack_root_logger": False,
        "worker_eta_task_limit": 1000,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_pool_acquire_timeout": 5,
        "visibility_timeout": VISIBILITY_TIMEOUT_S,
        "broker_transport_options": {
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "connect_retries_timeout": 2,  # of an event; 30 s by itself, with its slot
            "socket_keepalive": True,
            "health_check_interval": 25,
            "max_connections": config.worker_concurrency + 50,
        },
        "beat_scheduler": "celery.beat:Scheduler",  # in memory: all that counts is in Postgres
        "beat_schedule": beat_schedule(),
        "enable_utc": True,
        "timezone": "UTC",
    }


def _load() -> Settings:
    try:
        return settings()
    except SettingsError as error:
        raise SystemExit(str(error)) from None


# What `celery -A worker.app flower` lists of a task; its own choice hides what a task is about.
os.environ.setdefault("FLOWER_TASKS_COLUMNS", "name,state,kwargs,result,exception,received,runtime,uuid")
app = Celery("openclaw-provisioner", include=["tasks"])
app.config_from_object(celery_settings(_load()))


@cache
def services() -> Services:
    """What the tasks of this process work with, made on first use."""
    config = settings()
    device = DeviceKey.load_or_create(config.gateway_device_key)
    return Services(config, engine(), ClientPool(device), send, mint=Mint(KEPT), announce=_announce)


def send(name: str, kwargs: Mapping[str, Any], task_id: str | None) -> None:
    """Publish a message. Raises kombu's OperationalError, within about a second, where Redis is away."""
    app.send_task(name, kwargs=dict(kwargs), task_id=task_id, ignore_result=True)


def tell(event: str, task_ids: Iterable[object], **fields: Any) -> None:
    """Let Flower know, in the names of the tasks with these ids. While the broker is away nobody hears it:
    the jobs' rows say the same."""
    task = app.current_worker_task
    hostname = task.request.hostname if task is not None else None
    try:
        with app.events.default_dispatcher(hostname=hostname) as dispatcher:
            for task_id in task_ids:
                dispatcher.send(event, uuid=str(task_id), **fields)
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
    # What Celery warns of before it asks for logging is to be a line as any other, and the banner is none.
    configure_logging(settings())
    instance.quiet = instance.quiet or settings().log_format == "json"


@signals.celeryd_init.connect
def _check_pool(sender: Any = None, options: Mapping[str, Any] | None = None, **_: Any) -> None:
    pool = (options or {}).get("pool_cls") or (options or {}).get("pool")
    if pool is not None and "thread" not in str(pool).lower():
        name = pool if isinstance(pool, str) else str(getattr(pool, "__module__", pool)).rpartition(".")[2]
        raise SystemExit(f"This worker runs on threads alone: leave out --pool={name}.")


@signals.worker_init.connect
def _prepare(**_: Any) -> None:
    compile_templates(settings().templates_dir)


def _check_schema() -> None:
    try:
        with services().engine.connect() as connection:
            revision = revision_of(connection)
    except SQLAlchemyError as error:
        log.warning("the database cannot be reached yet: %s", type(error).__name__)
        return
    if revision is not None and revision > NEEDED_REVISION:
        # Migrations only add, so that workers may be replaced one after another.
        log.warning("the database is newer than this worker: revision %s, not %s", revision, NEEDED_REVISION)
    elif revision != NEEDED_REVISION:
        raise SettingsError(
            f"The database stands at revision {revision}, this version needs {NEEDED_REVISION}:"
            " run `provisioner migrate`."
        )


_clocks: list[Clock] = []


@signals.worker_ready.connect
def _start(**_: Any) -> None:
    try:
        clock = Clock(services())
        _check_schema()
    except PermanentError as error:
        raise SystemExit(str(error)) from None
    _clocks.append(clock)
    clock.start()
    services().mint.begin()


@signals.heartbeat_sent.connect
def _consuming(**_: Any) -> None:
    for clock in _clocks:
        clock.consuming()


@signals.after_task_publish.connect(sender="tasks.run_due_schedules")
def _beating(**_: Any) -> None:
    health.touch(settings().health_file)


@signals.worker_shutting_down.connect
def _drain(**_: Any) -> None:
    draining.set()
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
