"""Every path by which a text is stored or shown masks it."""

from __future__ import annotations

import importlib
import json
import logging
import pkgutil
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog
from sqlalchemy import TextClause

import worker.agents
import worker.cli
import worker.jobs
import worker.records
import worker.roster
import worker.sync
from worker.cli.console import emit, plain
from worker.errors import PermanentError
from worker.gateway.error_mapping import from_close, from_response
from worker.gateway.error_payload import CallContext
from worker.logs import configure_logging
from worker.masking import MASK, mask_all, remember
from worker.masking.columns import MaskedJson, MaskedText
from worker.settings import Settings

LEAK = "the gateway said: Authorization: Bearer q2v5hJMJ3C51gN8WCOWE"
SENTENCES = {"reason", "error", "warning", "warnings", "sentences", "note", "result", "rows", "woken"}
CONSTANT = {
    ("worker.jobs.store.busy_agents", "reason"),
    ("worker.jobs.store.cancelling", "reason"),
    ("worker.jobs.store.wake_batches", "reason"),
    ("worker.jobs.store.job_agents", "woken"),
}
"""Where what is written is a sentence of our own that quotes nothing, or no text at all."""


def statements() -> Iterator[tuple[str, TextClause]]:
    for package in (worker.jobs, worker.records, worker.roster, worker.agents, worker.sync, worker.cli):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for value in vars(importlib.import_module(found.name)).values():
                if isinstance(value, TextClause):
                    yield found.name, value


def test_every_statement_that_keeps_a_sentence_masks_it() -> None:
    kept = [
        (module, bind)
        for module, statement in statements()
        for bind in statement._bindparams.values()
        if bind.key in SENTENCES and (module, bind.key) not in CONSTANT
    ]
    assert len({bind.key for _, bind in kept}) > 5
    bare = [(module, bind.key) for module, bind in kept if not isinstance(bind.type, MaskedText | MaskedJson)]
    assert bare == []


def test_the_types_mask_texts_lists_and_documents() -> None:
    dialect = None
    assert MaskedText().process_bind_param(LEAK, dialect).endswith(MASK)  # type: ignore[arg-type]
    assert MaskedText().process_bind_param(None, dialect) is None  # type: ignore[arg-type]
    assert "q2v5" not in str(MaskedJson().process_bind_param({"a": [LEAK]}, dialect))  # type: ignore[arg-type]


@pytest.fixture
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.usefixtures("_logging_as_before")
@pytest.mark.parametrize("style", ["console", "json"])
def test_no_line_of_the_log_holds_a_secret(
    style: Literal["console", "json"], capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(
        Settings(
            database_url="postgresql+psycopg://me:my%2Fown-password@h/d?sslpassword=keys-own-password",  # type: ignore[arg-type]
            redis_url="redis://h/0",  # type: ignore[arg-type]
            base_url="http://h",
            log_format=style,
        )
    )
    log = logging.getLogger("somebody.else")
    log.warning("refused: %s", LEAK)
    log.warning(LEAK, extra={"said": LEAK})
    try:
        raise RuntimeError(LEAK)
    except RuntimeError:
        log.exception("failed")
    structlog.get_logger().warning("refused", detail=[LEAK], password="password=hunter2")
    log.warning("x" * 1_000_000)
    log.warning("the driver quotes my/own-password, and keys-own-password, as they are")
    written = capsys.readouterr().err
    assert "q2v5" not in written
    assert "hunter2" not in written
    assert "own-password" not in written
    assert written.count(MASK) >= 4
    assert len(written) < 60_000
    assert "RuntimeError" in written
    if style == "json":
        assert all(json.loads(line) for line in written.splitlines())


def test_no_error_and_nothing_on_a_terminal_holds_a_secret(capsys: pytest.CaptureFixture[str]) -> None:
    assert "q2v5" not in str(PermanentError(LEAK))
    assert "q2v5" not in plain(LEAK)
    emit({"error": LEAK})
    assert json.loads(capsys.readouterr().out) == mask_all({"error": LEAK})


def test_what_a_gateway_quotes_is_masked_where_it_enters() -> None:
    context = CallContext("ws://h:1", "config.patch")
    token = "q2v5hJMJ3C51gN8WCOWE__PX0pSVJNE-q9fOGHWKphA"
    remember("correct-horse-battery")
    for words in (
        f"bad token {token}",
        "password: hunter2",
        "it was correct-horse-battery",
        "x" * 7_990 + token,
    ):
        for message in (words, f"unauthorized: {words}", f"invalid config: a.b: {words}"):
            issues = [{"path": "a", "message": words}]
            answer = {"code": words, "message": message, "details": {"issues": issues, "code": words}}
            error = from_response(context, answer)
            said = f"{error} {error.code} {getattr(error, 'issues', ())}"
            assert not any(secret in said for secret in (token[:12], "hunter2", "horse")), said
        assert "hunter2" not in str(from_close(context, 1008, words))
