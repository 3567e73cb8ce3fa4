"""What stands between the workers and a gateway, the broker or the database breaks, delays and forgets."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from sqlalchemy import make_url, text

from tests.chaos.proxy import Proxy
from tests.chaos.scenario import Scenario
from tests.chaos.stage import Stage

Ways = Callable[[Stage, Proxy], None]


def bad_before_gateways(stage: Stage) -> None:
    """Connections to gateways end, also in the middle of an answer, are slow, and come in small pieces."""
    _disturbed(stage, _before_gateways(stage), _break, (0.1, 1.0), most=15)


def silent_before_gateways(stage: Stage) -> None:
    """Live connections to gateways pass nothing on any more, and nobody says so."""
    _disturbed(stage, _before_gateways(stage), _fall_silent, (1.0, 4.0), most=3)


def bad_before_the_broker(stage: Stage) -> None:
    """The same between workers and the broker. A message that it has handed over, and that did not arrive, is
    lost, but no row."""
    stage.asks_by_rows = True
    _disturbed(stage, [_before_the_broker(stage)], _break, (0.1, 1.5), most=12)


def silent_before_the_broker(stage: Stage) -> None:
    stage.asks_by_rows = True
    _disturbed(stage, [_before_the_broker(stage)], _fall_silent, (1.0, 3.0), most=2)


def bad_before_the_database(stage: Stage) -> None:
    """The same between workers and the database."""
    _disturbed(stage, [_before_the_database(stage)], _break, (0.3, 2.0), most=10)


def silent_before_the_database(stage: Stage) -> None:
    _disturbed(stage, [_before_the_database(stage)], _fall_silent, (1.0, 3.0), most=2)


def _before_gateways(stage: Stage) -> list[Proxy]:
    proxies = []
    for site in stage.sites:
        proxies.append(stage.enter(Proxy(urlsplit(site.simulator.url).port or 0, stage.rng)))
        with stage.workshop.engine.begin() as connection:
            values = {"url": f"ws://127.0.0.1:{proxies[-1].port}", "id": site.fleet.gateway_id}
            connection.execute(text("UPDATE gateways SET url = :url WHERE id = :id"), values)
    return proxies


def _before_the_broker(stage: Stage) -> Proxy:
    url = urlsplit(stage.workshop.redis_url)
    proxy = stage.enter(Proxy(url.port or 0, stage.rng))
    for _ in range(2):
        stage.start_worker(REDIS_URL=stage.workshop.redis_url.replace(f":{url.port}/", f":{proxy.port}/"))
    return proxy


def _before_the_database(stage: Stage) -> Proxy:
    url = make_url(stage.workshop.database_url)
    proxy = stage.enter(Proxy(url.port or 0, stage.rng))
    for _ in range(2):
        stage.start_worker(DATABASE_URL=url.set(port=proxy.port).render_as_string(hide_password=False))
    return proxy


def _disturbed(
    stage: Stage, proxies: Sequence[Proxy], way: Ways, pause_s: tuple[float, float], *, most: int
) -> None:
    times = iter(range(most))

    def once_more() -> None:
        if next(times, None) is not None:
            way(stage, stage.rng.choice(proxies))

    with stage.disturbed_by(once_more, pause_s):
        stage.commission()


def _break(stage: Stage, proxy: Proxy) -> None:
    way = stage.rng.choice(["cut", "cut inside", "away", "slow", "pieces"])
    if way == "cut":
        stage.broken += proxy.cut()
        return
    if way == "cut inside":
        stage.broken += proxy.cut_inside()
        return
    proxy.refuses = way == "away"
    if way == "away":
        proxy.cut()
    proxy.delay_s = 0.3 if way == "slow" else 0.0
    proxy.pieces = 7 if way == "pieces" else 1
    time.sleep(stage.rng.uniform(0.3, 2.0))
    proxy.refuses, proxy.delay_s, proxy.pieces = False, 0.0, 1
    stage.broken += 1


def _fall_silent(stage: Stage, proxy: Proxy) -> None:
    stage.broken += proxy.silence()


SCENARIOS = (
    Scenario("network before gateways", bad_before_gateways),
    Scenario("network before the broker", bad_before_the_broker, workers=0),
    Scenario("network before the database", bad_before_the_database, workers=0),
    Scenario("silence before gateways", silent_before_gateways),
    Scenario("silence before the broker", silent_before_the_broker, workers=0),
    Scenario("silence before the database", silent_before_the_database, workers=0),
)
