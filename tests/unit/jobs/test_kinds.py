"""A kind of job is declared once: routes, tables of the docs and what serves it follow (interfaces.md 3)."""

from __future__ import annotations

import ast
import json
import re

import pytest

from tests.product import ROOT, modules
from tests.rows import HANDLERS
from worker.jobs.kinds import KINDS, ONE_AGENT_KINDS, QUEUES, TASK_QUEUES, Kind, not_served, require_kind
from worker.jobs.requests import BadRequestError, Request, SyncGateway

ROW = re.compile(r"^\| `(tasks\.\w+)` \| `?(\w+)`? \| (.*?) \|$", re.MULTILINE)
ARGUMENT = re.compile(r"([a-z]+(?:_[a-z]+)*)(?: \(([^)]*)\))?(?:, |$)")
IDENTIFICATION = {"request_id", "requested_by", "webhook"}
"""What each task takes, beside what the tables list."""


def rows(document: str) -> dict[str, tuple[str, str]]:
    """The queue and the arguments of each task in a document's table."""
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    return {task: (queue, arguments) for task, queue, arguments in ROW.findall(text)}


def test_the_docs_list_each_kind_with_its_queue_and_arguments() -> None:
    listed = rows("design/interfaces.md")
    assert set(listed) == {kind.task for kind in KINDS.values()}
    for kind in KINDS.values():
        queue, arguments = listed[kind.task]
        assert queue == kind.queue, kind.name
        names = {name for name, _ in ARGUMENT.findall(arguments)}
        assert names == set(kind.request.model_fields) - IDENTIFICATION, kind.name


def test_the_contract_says_each_default() -> None:
    listed = rows("design/interfaces.md")
    for kind in KINDS.values():
        said = {name: default.partition(":")[0] for name, default in ARGUMENT.findall(listed[kind.task][1])}
        assert said == {
            name: "" if field.is_required() else json.dumps(field.default)
            for name, field in kind.request.model_fields.items()
            if name not in IDENTIFICATION
        }, kind.name


def test_each_kind_has_a_request_a_target_and_a_queue() -> None:
    for name, kind in KINDS.items():
        assert kind.request.kind == name
        assert kind.target in kind.request.model_fields
        assert kind.target in ("agent_id", "board_id", "gateway_id")
        assert TASK_QUEUES[kind.task] == kind.queue
    assert set(TASK_QUEUES.values()) == set(QUEUES)
    models = [*Request.__subclasses__(), *SyncGateway.__subclasses__()]
    ours = [model for model in models if model.__module__ == Request.__module__]
    assert set(ours) == {kind.request for kind in KINDS.values()}


def test_each_task_is_a_module_of_its_name() -> None:
    """Celery loads the modules by that list, and runs them by their tasks' names."""
    for task in TASK_QUEUES:
        source = (ROOT / f"{task.replace('.', '/')}.py").read_text(encoding="utf-8")
        assert f'name="{task}"' in source


def test_each_kind_about_one_agent_has_a_task_that_hands_over_its_handler() -> None:
    tasks = {name: ast.unparse(tree) for name, tree in modules(but="worker/").items()}
    handed = {name for name, source in tasks.items() if "run_agent_job(self, positional" in source}
    assert handed == {f"tasks/{name}.py" for name in ONE_AGENT_KINDS}
    assert set(HANDLERS) == {*ONE_AGENT_KINDS, "sync_gateway"}


def test_a_kind_that_nobody_knows_is_a_sentence() -> None:
    assert isinstance(require_kind("sync_gateway"), Kind)
    with pytest.raises(BadRequestError, match="jobs of kind adopt_everything: check its spelling") as caught:
        require_kind("adopt_everything")
    assert str(caught.value) == not_served("adopt_everything")
