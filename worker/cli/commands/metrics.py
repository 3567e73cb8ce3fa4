"""``provisioner metrics``: metrics for Prometheus, on stdout or over HTTP."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from worker.cli.console import Json, complain, emit, note
from worker.cli.environment import engine
from worker.cli.errors import WrongUseError, sentence
from worker.cli.metric_queries import read_metrics


class JobsCollector(Collector):
    """Runs the queries at each scrape. With ``wait_for_database``, a database that is away yields
    `provisioner_up` 0 and one message on stderr; otherwise SQLAlchemyError is raised."""

    def __init__(self, database: Engine, *, wait_for_database: bool) -> None:
        self._database = database
        self._waits_for_database = wait_for_database
        self._last_error = ""

    def describe(self) -> Iterator[Metric]:
        yield from ()  # else registering would ask the database

    def collect(self) -> Iterator[Metric]:
        try:
            with self._database.connect() as connection:
                metrics: list[Metric] = list(read_metrics(connection))
            self._last_error = ""
        except SQLAlchemyError as error:
            if not self._waits_for_database:
                raise
            if self._last_error != (now := sentence(error)):
                self._last_error = now
                complain(now)
            yield _up(0)
            return
        yield _up(1)
        yield from metrics


def _up(value: int) -> Metric:
    return GaugeMetricFamily("provisioner_up", "1 where the database answered.", value=value)


def metrics(
    listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Serve them at http://HOST:PORT/metrics until stopped."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print metrics for Prometheus: jobs, queues, retries, gateways, drift.

    They are read from Postgres at each request. There is no password: listen where only Prometheus can
    connect.
    """
    if listen is not None and as_json:
        raise WrongUseError("--listen serves Prometheus's own format: leave out --json.")
    address = _address(listen) if listen is not None else None
    collector = JobsCollector(engine(), wait_for_database=address is not None)
    registry = CollectorRegistry()
    registry.register(collector)
    if address is not None:
        _serve(registry, *address)
    elif as_json:
        emit([_document(sample) for family in collector.collect() for sample in family.samples])
    else:
        typer.echo(generate_latest(registry), nl=False)


def _document(sample: Any) -> dict[str, Any]:
    return {"name": sample.name, "labels": sample.labels, "value": sample.value}


def _address(given: str) -> tuple[str, int]:
    host, _, port = given.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise WrongUseError(f"--listen is HOST:PORT, 127.0.0.1:9108 for one, not {given!r}.")
    return host.strip("[]"), int(port)


def _serve(registry: CollectorRegistry, host: str, port: int) -> None:
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise WrongUseError(f"Nothing can listen at {host}:{port}: {error.strerror}.") from None
    stopped = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        shown = f"[{host}]" if ":" in host else host
        note(f"Figures at http://{shown}:{server.server_port}/metrics")
        stopped.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        server.shutdown()
        server.server_close()
        thread.join()
