"""The Celery side: names are frozen, options are spelt right, settings are those of celery.md 3."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, Task
from celery.app.defaults import NAMESPACES, flatten

from worker.jobs.kinds import KINDS
from worker.settings import settings

FROZEN_NAMES = {
    *("tasks.provision_agent", "tasks.update_agent", "tasks.delete_agent", "tasks.sync_gateway"),
    *("tasks.sync_heartbeats", "tasks.ensure_board_lead", "tasks.provision_gateway_main"),
    *("tasks.adopt_agent", "tasks.adopt_gateway", "tasks.roll_out"),
    *("tasks.export_agent", "tasks.restore_agent"),
    *("tasks.rollback", "tasks.rollback_job"),
    *("tasks.sync_agent", "tasks.finish_sync", "tasks.write_roster", "tasks.run_due_schedules"),
}
QUEUES = {
    "tasks.provision_agent": "provisioning",
    "tasks.update_agent": "provisioning",
    "tasks.delete_agent": "provisioning",
    "tasks.provision_gateway_main": "provisioning",
    "tasks.adopt_agent": "provisioning",
    "tasks.export_agent": "provisioning",
    "tasks.restore_agent": "provisioning",
    "tasks.rollback": "provisioning",
    "tasks.sync_agent": "sync",
}
# What `app.task(...)` sets on a task's own class, beside what Task declares.
KNOWN = {name for cls in Task.__mro__ for name in vars(cls)} | {name for name, _ in Task.from_config}
KNOWN |= {
    "app",
    "run",
    "_decorated",
    "_decorated_fun",
    "_orig_run",
    "__header__",
    "__wrapped__",
    "__qualname__",
}
LONGEST_TASK_S = 30
"""decisions.md D4"""
KNOWN |= {"__annotations__", "__static_attributes__", "__firstlineno__"}


@pytest.fixture(scope="module")
def app() -> Iterator[Celery[Any]]:
    """The real application, with an environment that leads nowhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", "postgresql+psycopg://nobody@127.0.0.1:9/none")
        patch.setenv("REDIS_URL", "redis://127.0.0.1:9/0")
        patch.setenv("BASE_URL", "http://127.0.0.1:9")
        settings.cache_clear()
        from worker.app import app

        app.loader.import_default_modules()
        yield app
    settings.cache_clear()


@pytest.fixture(scope="module")
def tasks(app: Celery) -> dict[str, Task[..., Any]]:
    return {name: task for name, task in app.tasks.items() if not name.startswith("celery.")}


def test_every_tasks_name_is_in_the_contract(tasks: dict[str, Task[..., Any]]) -> None:
    assert tasks
    assert set(tasks) <= FROZEN_NAMES


def test_every_kind_of_request_has_its_task(tasks: dict[str, Task[..., Any]]) -> None:
    assert {kind.task for kind in KINDS.values()} <= set(tasks)


def test_every_option_of_a_task_is_one_that_celery_knows(tasks: dict[str, Task[..., Any]]) -> None:
    """Celery swallows what is misspelt (celery.md 0.7)."""
    for name, task in tasks.items():
        assert set(vars(type(task))) - KNOWN == set(), name


def test_a_misspelt_option_would_be_found(app: Celery) -> None:
    def nothing() -> None: ...

    misspelt = app._task_from_fun(nothing, name="tests.misspelt", ignore_results=True)
    try:
        assert set(vars(type(misspelt))) - KNOWN == {"ignore_results"}
    finally:
        del app.tasks["tests.misspelt"]


def test_every_setting_is_one_that_celery_knows(app: Celery) -> None:
    known = {pair[0] for pair in flatten(NAMESPACES)} | {"visibility_timeout"}
    from worker.app import celery_settings

    assert set(celery_settings(settings())) - known == set()


def test_each_task_has_the_queue_of_the_contract(app: Celery, tasks: dict[str, Task[..., Any]]) -> None:
    for name in tasks:
        queue = app.amqp.router.route({}, name)["queue"]
        assert getattr(queue, "name", queue) == QUEUES.get(name, "control"), name


def test_tasks_take_keyword_arguments_that_they_do_not_know(tasks: dict[str, Task[..., Any]]) -> None:
    """A newer sender must not break an older worker."""
    for name, task in tasks.items():
        kinds = {parameter.kind for parameter in inspect.signature(task.run).parameters.values()}
        assert inspect.Parameter.VAR_KEYWORD in kinds, name


def test_what_a_late_worker_needs_is_set(app: Celery) -> None:
    conf = app.conf
    assert (conf.task_acks_late, conf.worker_prefetch_multiplier, conf.worker_pool) == (True, 1, "threads")
    assert (conf.accept_content, conf.task_serializer) == (["json"], "json")
    assert conf.result_backend is None
    assert (conf.task_ignore_result, conf.task_create_missing_queues) == (True, False)
    assert conf.worker_consumer == "worker.reconnect:ReconnectSafeConsumer"
    assert conf.broker_transport_options["visibility_timeout"] == conf.visibility_timeout == 600
    tries = 1 + conf.task_publish_retry_policy["max_retries"]
    assert tries * conf.broker_transport_options["socket_timeout"] <= LONGEST_TASK_S


@pytest.mark.parametrize(("asked", "slots"), [({"concurrency": 40}, 40), ({"concurrency": "7"}, 7), ({}, 48)])
def test_what_is_sized_by_the_slots_follows_the_command_line(
    app: Celery,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    asked: dict[str, Any],
    slots: int,
) -> None:
    from worker import app as ours
    from worker import lifecycle

    before = {name: getattr(app.conf, name) for name in ("worker_concurrency", "broker_transport_options")}
    request.addfinalizer(lambda: app.conf.update(before))
    lifecycle._count_slots(conf=app.conf, options=asked)
    assert ours.settings().worker_concurrency == slots
    assert app.conf.broker_transport_options["max_connections"] > slots
    sized: list[int] = []
    monkeypatch.setattr("worker.app.make_engine", lambda _url, pool_size: sized.append(pool_size))
    monkeypatch.setattr("worker.app.DeviceKey.load_or_create", lambda _path: None)
    ours.services.__wrapped__()
    assert sized == [2 + min(16, slots)]


@pytest.mark.parametrize("asked", [None, "sync", "sync,control", ["provisioning"], ()])
def test_a_worker_may_serve_some_of_the_queues(app: Celery, asked: Any) -> None:
    from worker import lifecycle

    lifecycle._check_queues(conf=app.conf, options={"queues": asked})


@pytest.mark.parametrize("asked", ["celery", "sync,nope", ["nope"]])
def test_a_queue_that_is_none_of_ours_is_a_sentence(
    app: Celery, asked: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from worker import lifecycle

    with pytest.raises(SystemExit):
        lifecycle._check_queues(conf=app.conf, options={"queues": asked})
    assert "leave out -Q, or choose from provisioning, sync, control." in capsys.readouterr().err
