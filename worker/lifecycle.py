"""Starts and stops a worker, beat or Flower: Celery's signals, SIGTERM included, and the dispatcher's thread.

On SIGTERM, the flag ``shutting_down`` ends every wait: tasks that were waiting park their rows for a later
claim, and all other tasks go on. BREAK_OFF_S seconds later all gateway connections are closed, so that these
tasks park their rows too (celery.md 3).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

from celery import signals
from celery.utils.sysinfo import (  # type: ignore[attr-defined]  # missing from celery-types
    cpu_budget,
    is_auto_concurrency,
)
from redis.exceptions import ResponseError

from worker import health, rights
from worker.app import app, services, settings, start_up
from worker.broker import BrokerCheck, check_broker, most_connections
from worker.consumer_liveness import liveness_step
from worker.database import DATABASE_AWAY
from worker.database_gate import gate
from worker.dispatcher import Dispatcher
from worker.errors import PermanentError
from worker.jobs.kinds import TASK_QUEUES
from worker.logs import configure_logging
from worker.messages.default_queue import move_to_our_queues
from worker.schema_version import NEEDED_REVISION, revision_of
from worker.settings import SettingsError, incomplete
from worker.shutdown_flag import shutting_down
from worker.startup_checks import refuse
from worker.webhooks.deliverer import Deliverer
from worker.workspace.rendering import compile_templates

log = logging.getLogger(__name__)

BREAK_OFF_S = 30.0
"""Seconds from SIGTERM until all gateway connections are closed. The rows of tasks that are still running are
then parked, as after a lost connection, so that the worker exits well within the 45 s that it is given."""


@signals.setup_logging.connect
def _logging(**_: Any) -> None:
    configure_logging(settings())


@signals.celeryd_init.connect
def _configure_logging_early(instance: Any = None, **_: Any) -> None:
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
    _warn_of_broker(start_up.broker)


def _warn_of_broker(broker: BrokerCheck | None) -> None:
    if broker is not None and broker.warning is not None:
        log.warning("%s", broker.warning)


def _recheck_broker() -> None:
    """Check the broker again if it was unreachable when this process started. Raises SettingsError for faults
    that do not pass."""
    if start_up.broker is None or start_up.broker.away is None:
        return
    seen = check_broker(settings().broker)
    if seen.fault is not None:
        raise incomplete([f"REDIS_URL: {seen.fault}"])
    _warn_of_broker(seen)


def _check_schema() -> None:
    try:
        with services().engine.connect() as connection:
            revision = revision_of(connection)
    except DATABASE_AWAY as error:
        gate.close(error)
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
            for kind in rights.KIND_RIGHTS:
                try:
                    rights.require_for(connection, kind)
                except PermanentError as error:
                    log.warning("%s", error)
    except DATABASE_AWAY as error:
        gate.close(error)


_dispatchers: list[Dispatcher] = []
_deliverers: list[Deliverer] = []


def _deliverer() -> Deliverer | None:
    """The deliverer of this worker; None without WEBHOOK_KEY: the worker then leaves webhooks to others."""
    config = settings()
    if not config.webhook_keys:
        return None
    return Deliverer(services().engine, config.webhook_keys, config.webhook_networks)


@signals.worker_ready.connect
def _start(**_: Any) -> None:
    try:
        deliverer = _deliverer()
        deliver = deliverer.send_due if deliverer is not None else lambda: None
        dispatcher = Dispatcher(services(), rescue=_rescue, deliver=deliver)
        _recheck_broker()
        _check_schema()
        dispatcher.check_database()
    except PermanentError as error:
        refuse(error)
    except Exception:
        # Celery would log it, and the worker would take messages without a dispatcher.
        log.exception("this worker cannot begin")
        raise SystemExit(1) from None
    _dispatchers.append(dispatcher)
    if deliverer is not None:
        _deliverers.append(deliverer)
    dispatcher.start()
    services().token_pool.start()


_rescue_refused: list[str] = []


def _rescue() -> None:
    connections: Any = app.pool  # the connection pool: celery-types declares it as the pool of producers
    if _rescue_refused:
        return
    try:
        with connections.acquire(block=True, timeout=5) as connection:
            move_to_our_queues(connection.default_channel, TASK_QUEUES)
    except ResponseError as error:  # an ACL without that key, or a key of another type
        _rescue_refused.append(str(error))
        log.warning("nobody looks for our messages in Celery's default queue: %s", error)


def _note_consuming() -> None:
    for dispatcher in _dispatchers:
        dispatcher.note_consuming()


app.steps["consumer"].add(liveness_step(_note_consuming))


@signals.after_task_publish.connect(sender="tasks.run_due_schedules")
def _touch_health_file(**_: Any) -> None:
    health.touch(settings().health_file)


@signals.worker_shutting_down.connect
def _shut_down(**_: Any) -> None:
    shutting_down.set()
    if _dispatchers:
        break_off = threading.Timer(BREAK_OFF_S, services().clients.close_all)
        break_off.daemon = True
        break_off.start()


@signals.worker_shutdown.connect
def _stop(**_: Any) -> None:
    for dispatcher in _dispatchers:
        dispatcher.stop()
    for deliverer in _deliverers:
        deliverer.stop()
    if _dispatchers:
        services().clients.close_all()
