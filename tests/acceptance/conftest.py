"""The same tests on the simulator (``make test``) and on real releases (``make test-gateways``)."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from models.migrate import migrate
from tests.acceptance.proxy import Door
from tests.acceptance.world import World
from tests.fleet import make_fleet
from tests.gateways.stub_model import StubModel
from worker.database import make_engine
from worker.local import LocalServices
from worker.openclaw import OpenClaw, RunningGateway
from worker.simulator import Simulator

DEFAULT_TARGETS = ("sim:2026.2.12", "sim:2026.3.13", "sim:2026.9.6")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "world" in metafunc.fixturenames:
        targets = metafunc.config.getoption("--target") or DEFAULT_TARGETS
        metafunc.parametrize("world", targets, indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what a target cannot show: ``openclaw`` is for real releases, ``model`` for those that run
    one (not the simulator, and not 2026.2.12, whose agents' runs all fail: gateway.md 3)."""

    def fits(item: pytest.Item) -> bool:
        target = str(getattr(item, "callspec", None) and item.callspec.params.get("world", ""))  # type: ignore[attr-defined]
        if item.get_closest_marker("model"):
            return target.startswith("openclaw:") and not target.endswith(":2026.2.12")
        return not (item.get_closest_marker("openclaw") and target.startswith("sim:"))

    left_out = [item for item in items if "world" in getattr(item, "fixturenames", ()) and not fits(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def owners_config(release: str, extra: dict[str, Any]) -> dict[str, Any]:
    """What the gateway's owner had there before us: an agent with keys that we do not know, a provider."""
    bot: dict[str, Any] = {"name": "Owner's own", "identity": {"name": "Bot", "emoji": ":owl:"}}
    agents: dict[str, Any] = dict(extra.get("agents", {}))
    if release < "2026.8":
        agents["list"] = [{"id": "main", "default": True}, {"id": "owners-bot", **bot}]
    else:
        agents |= {"ownership": "explicit", "entries": {"main": {}, "owners-bot": bot}}
    return {**extra, "agents": agents}


@pytest.fixture(scope="session")
def world(
    request: pytest.FixtureRequest, services: LocalServices, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """A gateway that serves the whole session, with a database, a broker and a worker process of its own:
    the worker lives on beside other tests, and must not take their messages."""
    kind, _, release = request.param.partition(":")
    real = kind != "sim"
    folder = tmp_path_factory.mktemp(f"{kind}-{release}")
    state, token = folder / "state", secrets.token_urlsafe(24)
    broker = LocalServices(folder / "broker", postgres=False, durable=False)
    with broker, StubModel() as model:
        has_model = real and release > "2026.2.12"
        config = owners_config(release, model.config if has_model else {})
        process: Simulator | RunningGateway
        if real:
            process = RunningGateway(OpenClaw.install(release), state, token=token, config_extra=config)
        else:
            process = Simulator(release, token=token, state_dir=state, config=config, reply="HEARTBEAT_OK")
        process.start()
        url = services.create_database(f"acceptance_{kind}_{release.replace('.', '_')}")
        engine = make_engine(url)
        migrate(engine, standalone=True)
        with Door(process.url) as door:
            fleet = make_fleet(engine, url=door.url, token=token, workspace_root=str(folder / "agents"))
            settings = {
                "DATABASE_URL": url,
                "REDIS_URL": broker.redis_url,
                "BASE_URL": "http://127.0.0.1:8000",
                "GATEWAY_DEVICE_KEY": str(folder / "device.pem"),
                "LEASE_S": "6" if real else "3",
                "CLOCK_TICK_S": "0.2",
                "RETRY_INLINE_S": "5",
                "RETRY_BUDGET_S": "120",
            }
            app = Celery(broker=broker.redis_url)
            app.conf.task_default_queue = "provisioning"
            world = World(
                release=release,
                real=real,
                process=process,
                config_path=state / "openclaw.json",
                door=door,
                engine=engine,
                fleet=fleet,
                app=app,
                settings=settings,
                folder=folder,
                gateway_token=token,
                model=model if has_model else None,
            )
            world.start_worker()
            yield world
            world.stop_workers()
            app.close()
        engine.dispose()
        process.stop()
