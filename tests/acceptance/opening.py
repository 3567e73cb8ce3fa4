"""Opens a world around a gateway that runs: database, broker, proxy, rows of Mission Control, one worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from celery import Celery

from models.migrate import migrate
from tests.acceptance.proxy import Proxy
from tests.acceptance.world import World
from tests.fleet import make_fleet
from tests.gateways.stub_model import StubModel
from worker.database import make_engine
from worker.lab.openclaw import RunningGateway
from worker.lab.servers import LocalServices
from worker.lab.simulator import Simulator


@contextmanager
def open_world(
    process: Simulator | RunningGateway,
    release: str,
    token: str,
    services: LocalServices,
    folder: Path,
    database: str,
    model: StubModel | None = None,
    root: Path | None = None,
) -> Iterator[World]:
    """``process`` is running, and is left running. The broker and the worker process are the world's own: the
    worker lives on beside other tests, and must not take their messages."""
    real = isinstance(process, RunningGateway)
    with LocalServices(folder / "broker", postgres=False, durable=False) as broker:
        url = services.create_database(database)
        engine = make_engine(url)
        migrate(engine, standalone=True)
        with Proxy(process.url) as proxy:
            fleet = make_fleet(
                engine, url=proxy.url, token=token, workspace_root=str(root or folder / "agents")
            )
            settings = {
                "DATABASE_URL": url,
                "REDIS_URL": broker.redis_url,
                "BASE_URL": "http://127.0.0.1:8000",
                "GATEWAY_DEVICE_KEY": str(folder / "device.pem"),
                "LEASE_S": "6" if real else "3",
                "DISPATCH_INTERVAL_S": "0.25",
                "RETRY_INLINE_S": "5",
                # A gateway that cannot close for a restart is away for 95 s, and then has to start.
                "RETRY_TIMEOUT_S": "240" if real else "120",
            }
            app = Celery(broker=broker.redis_url)
            app.conf.task_default_queue = "provisioning"
            world = World(
                release=release,
                real=real,
                process=process,
                config_path=process.config_path,
                proxy=proxy,
                engine=engine,
                fleet=fleet,
                app=app,
                settings=settings,
                folder=folder,
                gateway_token=token,
                model=model,
            )
            world.allow_rewrites()
            world.start_worker()
            yield world
            world.stop_workers()
            app.close()
        engine.dispose()
