"""The Celery application: queues, Celery's settings, signals. All of Celery's machinery is here."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from typing import Any

from celery import Celery, signals
from kombu import Queue
from sqlalchemy.exc import SQLAlchemyError

from models.migrate import current_revision, head_revision
from worker.clock import Clock
from worker.database import engine
from worker.drain import draining
from worker.errors import PermanentError
from worker.gateway.client import ClientPool
from worker.gateway.device import DeviceKey
from worker.logs import configure_logging
from worker.provisioning.services import Services
from worker.settings import Settings, SettingsError, settings

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
    "tasks.write_roster": "control",
}
VISIBILITY_TIMEOUT_S = 600
"""Above any task's run time by far: bodies end within 30 s, and waits are rows, not messages."""


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
            "socket_keepalive": True,
            "health_check_interval": 25,
            "max_connections": config.worker_concurrency + 50,
        },
        "enable_utc": True,
        "timezone": "UTC",
    }


def _load() -> Settings:
    try:
        return settings()
    except SettingsError as error:
        raise SystemExit(str(error)) from None


app = Celery("openclaw-provisioner", include=["tasks"])
app.config_from_object(celery_settings(_load()))


@cache
def services() -> Services:
    """What the tasks of this process work with, made on first use."""
    config = settings()
    device = DeviceKey.load_or_create(config.gateway_device_key)
    return Services(config, engine(), ClientPool(device), send)


def send(name: str, kwargs: Mapping[str, Any], task_id: str | None) -> None:
    """Publish a message. Raises kombu's OperationalError, within about a second, where Redis is away."""
    app.send_task(name, kwargs=dict(kwargs), task_id=task_id, ignore_result=True)


@signals.setup_logging.connect
def _logging(**_: Any) -> None:
    configure_logging(settings())


@signals.celeryd_init.connect
def _check_pool(sender: Any = None, options: Mapping[str, Any] | None = None, **_: Any) -> None:
    pool = (options or {}).get("pool_cls") or (options or {}).get("pool")
    if pool is not None and "thread" not in str(pool).lower():
        raise SystemExit(f"This worker runs on threads alone: leave out --pool={pool} (design D4).")


def _check_schema() -> None:
    try:
        with services().engine.connect() as connection:
            revision = current_revision(connection)
    except SQLAlchemyError as error:
        log.warning("the database cannot be reached yet: %s", type(error).__name__)
        return
    if revision != head_revision():
        raise SettingsError(
            f"The database stands at revision {revision}, this version needs {head_revision()}:"
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
    log.info("ready")


@signals.worker_shutting_down.connect
def _drain(**_: Any) -> None:
    draining.set()


@signals.worker_shutdown.connect
def _stop(**_: Any) -> None:
    for clock in _clocks:
        clock.stop()
    if _clocks:
        services().clients.close_all()
