"""A worker whose database is behind PgBouncer in transaction mode."""

from __future__ import annotations

from collections.abc import Callable

from tests.bouncer import bouncer
from tests.integration.worker.workshop import Workshop


def test_every_job_of_many_succeeds(open_workshop: Callable[[], Workshop]) -> None:
    """More slots than connections to the server, and each statement often enough to be prepared."""
    workshop = open_workshop()
    place = workshop.place("2026.9.6", agents=12)
    with bouncer(workshop.database_url, "default_pool_size = 4") as url:
        worker = workshop.start_worker(DATABASE_URL=url, WORKER_CONCURRENCY="12", RETRY_TIMEOUT_S="60")
        for kind in ("provision_agent", "update_agent", "delete_agent"):
            keys = [workshop.ask(kind, agent_id=agent) for agent in place.fleet.agents]
            if kind == "update_agent":
                keys.append(
                    workshop.ask("sync_gateway", gateway_id=place.fleet.gateway_id, include_main=False)
                )
            ended = [workshop.ended(key) for key in keys]
            assert {(row.status, row.error) for row in ended} == {("succeeded", None)}
        worker.stop()
    assert not [sign for sign in ("Traceback", "prepared statement") if sign in worker.log()]
