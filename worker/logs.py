"""Sets up logging: a line for each event, for a console or as JSON, with the ids that the event is about."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import structlog
from structlog.dev import Column, KeyValueColumnFormatter, LogLevelColumnFormatter

from worker.escaped import escaped
from worker.log_context import IDS
from worker.masking import mask, remember_for_good
from worker.settings import Settings

# Tracebacks never show local variables: a token may be among them (rules.md 29).
_TRACEBACKS = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)
_QUIET = ("websockets", "kombu", "amqp", "celery.worker.strategy", "celery.app.trace", "alembic")
_OURS = ("worker.", "tasks.", "models.")
_OF_TRACEBACKS = ("exception", "stack")
_LONGEST = 16_000
"""Limit on the characters of one text in a log line."""
_DIGITS = 8
"""How many digits of an id the console shows; every command accepts an id shortened to them."""


def configure_logging(settings: Settings) -> None:
    """Send all log events of LOG_LEVEL and above through one handler to stderr, in LOG_FORMAT."""
    _remember_passwords(settings)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    console = _console(colours=sys.stderr.isatty())
    render: list[structlog.typing.Processor] = (
        [_TRACEBACKS, _without_secrets, structlog.processors.JSONRenderer()]
        if settings.log_format == "json"
        else [structlog.processors.format_exc_info, _without_secrets, _on_one_line, _for_people, console]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    logging.captureWarnings(True)
    logging.getLogger("celery.app.trace").addFilter(_is_not_handed_back)
    if settings.log_level != "DEBUG":
        for name in _QUIET:
            logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger("celery.beat").addFilter(_is_no_tick)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def _remember_passwords(settings: Settings) -> None:
    if settings.redis_password is not None:
        remember_for_good(settings.redis_password.get_secret_value())
    remember_for_good(os.environ.get("PGPASSWORD"), *settings.webhook_keys, *settings.bundle_keys)
    for url in (settings.database_url, settings.redis_url):
        with contextlib.suppress(ValueError):
            parts = urlsplit(url.get_secret_value())
            remember_for_good(parts.password, unquote(parts.password or ""))
            options = parse_qs(parts.query)
            remember_for_good(*options.get("password", ()), *options.get("sslpassword", ()))


def _without_secrets(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Mask secrets in the event and cut long texts: the last step before the line is rendered."""
    return {key: _bounded(value) for key, value in event.items()}


def _bounded(value: Any) -> Any:
    if isinstance(value, str):
        # Cut before masking, which is slow for a long text, and after it, so that the cut splits no secret.
        shown = mask(value[: 2 * _LONGEST])
        return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]} ... (cut)"
    if isinstance(value, Mapping):
        return {key: _bounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_bounded(each) for each in value]
    return value if isinstance(value, bool | int | float | None) else _bounded(str(value))


def _on_one_line(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape line breaks and control characters, so that each event is one line whatever text it quotes."""
    for name, value in event.items():
        if isinstance(value, str) and name not in _OF_TRACEBACKS:
            event[name] = escaped(value)
    return event


def _is_no_tick(record: logging.LogRecord) -> bool:
    """Filter out beat's line every ten seconds; a schedule that is due logs its own line."""
    return not str(record.msg).startswith("Scheduler: Sending due task")


def _is_not_handed_back(record: logging.LogRecord) -> bool:
    """Filter out messages returned to their queue: the database gate has logged why."""
    return getattr(record, "data", {}).get("description") != "rejected"


def _for_people(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Shorten the event for a terminal: first digits of ids, UTC to the second, no logger names of ours."""
    for name in IDS:
        if name in event:
            event[name] = str(event[name])[:_DIGITS]
    if event.get("logger") == "py.warnings":
        event["event"] = " ".join(str(event["event"]).split())
    event["timestamp"] = str(event["timestamp"])[:19].replace("T", " ")
    if str(event.get("logger", "")).startswith(_OURS):
        del event["logger"]
    return event


def _console(*, colours: bool) -> structlog.dev.ConsoleRenderer:
    styles = structlog.dev.ConsoleRenderer.get_default_column_styles(colors=colours)
    levels = structlog.dev.ConsoleRenderer.get_default_level_styles(colours)

    def shown(style: str, key_style: str | None = None) -> KeyValueColumnFormatter:
        return KeyValueColumnFormatter(key_style, style, styles.reset, value_repr=str)

    named = shown(styles.kv_value, styles.kv_key)
    return structlog.dev.ConsoleRenderer(
        columns=[
            Column("timestamp", shown(styles.timestamp)),
            Column("level", LogLevelColumnFormatter(levels, styles.reset, width=0)),
            Column("event", shown(styles.bright)),
            *(Column(name, named) for name in IDS),
            Column("", named),
        ],
        exception_formatter=structlog.dev.plain_traceback,
    )
