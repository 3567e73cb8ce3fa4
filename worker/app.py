"""The Celery application: queues, Celery's settings, and the services that its tasks use.

What happens when a process starts and stops is in `worker.lifecycle`, which this module loads last.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any
from uuid import UUID

from celery import Celery, Task
from kombu import Queue

from worker.beat import beat_schedule
from worker.broker import broker_settings
from worker.database import make_engine
from worker.gateway.client import ClientPool
from worker.gateway.device import DeviceKey
from worker.jobs.kinds import QUEUES, TASK_QUEUES
from worker.log_context import log_context
from worker.runtime.gateway_slots import GatewaySlots, slots_per_gateway
from worker.runtime.services import Services
from worker.runtime.token_pool import STOCK, TokenPool
from worker.settings import Settings
from worker.startup_checks import run_startup_checks

log = logging.getLogger(__name__)


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
start_up = run_startup_checks()


class OurTask(Task[..., Any]):
    """A task whose arguments may have any name, even ``self``, which Celery's own ``__call__`` refuses."""

    def __call__(self, /, *positional: Any, **arguments: Any) -> Any:
        return self.run(*positional, **arguments)


app = Celery("openclaw-provisioner", task_cls=OurTask, include=[*TASK_QUEUES, "worker.remote_control"])
app.config_from_object(celery_settings(start_up.settings))


def settings() -> Settings:
    """The settings of this process; ``-c`` on the command line overrides ``worker_concurrency``."""
    slots = app.conf.worker_concurrency
    return start_up.settings.model_copy(update={"worker_concurrency": slots})


def connections(slots: int) -> int:
    """How many connections to the database a process with so many slots may have: two for the dispatcher, and
    one for each of the first sixteen slots, or for every fourth slot if those are more."""
    return 2 + min(slots, max(16, slots // 4))


@cache
def services() -> Services:
    """The services that this process's tasks use, created on first use.

    The engine's pool holds at most `connections` database connections: slots that wait for a gateway have
    none.
    """
    config = settings()
    device = DeviceKey.load_or_create(config.gateway_device_key)
    slots = GatewaySlots(slots_per_gateway(config.worker_concurrency), config.worker_concurrency)
    engine = make_engine(
        config.database_url.get_secret_value(), pool_size=connections(config.worker_concurrency)
    )
    return Services(
        config, engine, ClientPool(device), send, token_pool=TokenPool(STOCK), announce=_announce, slots=slots
    )


def send(name: str, kwargs: Mapping[str, Any], task_id: str | None) -> None:
    """Publish a message. Raises kombu's OperationalError within about a second if Redis is unreachable."""
    app.send_task(name, kwargs=dict(kwargs), task_id=task_id, ignore_result=True)


def _announce(jobs: Sequence[UUID]) -> None:
    from worker.task_events import send_task_event  # it imports the application

    for job_id in jobs:
        with log_context(job=job_id):
            log.info("succeeded")
    send_task_event("task-succeeded", jobs, result="'succeeded'", runtime=None)


from worker import lifecycle  # noqa: E402, F401  # it connects Celery's signals, and needs all of the above
