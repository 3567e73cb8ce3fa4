"""What stands between the workers and a gateway, the broker or the database breaks, delays and forgets."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import make_url, text

from tests.certificates import self_signed
from tests.chaos.proxy import Proxy
from tests.chaos.scenario import Scenario
from tests.chaos.stage import Site, Stage
from tests.tls_front import tls_front

Ways = Callable[[Stage, Proxy], None]


def bad_before_gateways(stage: Stage) -> None:
    """Connections to gateways end, also in the middle of an answer, are slow, and come in small pieces."""
    _disturbed(stage, _before_gateways(stage), _break, (0.1, 1.0), most=15)


def silent_before_gateways(stage: Stage) -> None:
    """Live connections to gateways pass nothing on any more, and nobody says so."""
    _disturbed(stage, _before_gateways(stage), _fall_silent, (1.0, 4.0), most=1)


def bad_before_the_broker(stage: Stage) -> None:
    """Connections to the broker end, also in the middle of an answer, are slow, and come in small pieces."""
    _disturbed(stage, [_before_the_broker(stage)], _break, (0.1, 1.5), most=12)


def silent_before_the_broker(stage: Stage) -> None:
    """Live connections to the broker pass nothing on any more, and nobody says so."""
    _disturbed(stage, [_before_the_broker(stage)], _fall_silent, (1.0, 3.0), most=1)


def bad_before_the_database(stage: Stage) -> None:
    """Connections to the database end, are slow, and come in small pieces."""
    _disturbed(stage, [_before_the_database(stage)], _break, (0.3, 2.0), most=10)


def silent_before_the_database(stage: Stage) -> None:
    """Live connections to the database pass nothing on any more, with transactions open and rows locked."""
    _disturbed(stage, [_before_the_database(stage)], _fall_silent, (1.0, 3.0), most=1)


def wrong_certificates(stage: Stage) -> None:
    """Gateways show a certificate that nobody vouches for, one of another host, and one that has expired.
    Each is refused with a sentence, and the gateway is not asked for anything."""
    kinds = {"unknown": "certificate", "wrong host": "match", "expired": "expired"}
    contexts, trusted = _certificates(stage, list(kinds))
    for _ in range(2):
        stage.start_worker(SSL_CERT_FILE=str(trusted))
    for kind in stage.rng.sample(sorted(kinds), len(kinds)):
        for site in stage.sites:
            port = stage.enter(tls_front(contexts[kind], urlsplit(site.simulator.url).port or 0))
            _move(stage, site, f"wss://127.0.0.1:{port}")
            agent = stage.add(site, "Agent 000")
            ended = stage.ended(stage.provision(agent, wake=True))
            if ended.status != "failed" or kinds[kind] not in (ended.error or ""):
                stage.failed.append(f"{kind} certificate: {ended.status}, {ended.error}")
            if site.simulator.calls:
                stage.failed.append(f"{kind} certificate: the gateway was asked all the same")
            stage.broken += 1
    for site in stage.sites:
        _move(stage, site, site.simulator.url)
    stage.commission()


def wrong_certificates_of_the_broker(stage: Stage) -> None:
    """The broker shows a certificate that nobody vouches for, one of another host, and one that has expired.
    Workers that run wait for its own, and one that starts meanwhile ends with a sentence."""
    told = {"unknown": "is not trusted", "wrong host": "for another host", "expired": "has expired"}
    contexts, trusted = _certificates(stage, [*told, "right"])
    broker = urlsplit(stage.workshop.redis_url)
    ports = {kind: stage.enter(tls_front(context, broker.port or 0)) for kind, context in contexts.items()}
    proxy = stage.enter(Proxy(ports["right"], stage.rng))
    url = f"rediss://:{broker.password}@127.0.0.1:{proxy.port}{broker.path}?ssl_ca_certs={trusted}"
    for _ in range(2):
        stage.start_worker(REDIS_URL=url)
    kinds = iter(stage.rng.sample(sorted(told), len(told)) * 2)

    def show_another() -> None:
        kind = next(kinds, None)
        if kind is None:
            return
        proxy.lead_to(ports[kind])
        said = _refused(stage, url)
        if told[kind] not in said:
            stage.failed.append(f"a worker that met the {kind} certificate of the broker says: {said}")
        proxy.lead_to(ports["right"])
        stage.broken += 1

    with stage.disturbed_by(show_another, (0.5, 3.0)):
        stage.commission()


def _refused(stage: Stage, url: str) -> str:
    """What a worker says that cannot start with this broker."""
    try:
        stage.start_worker(REDIS_URL=url)
    except AssertionError as error:
        return str(error)
    return "it has started"


def _certificates(stage: Stage, kinds: Sequence[str]) -> tuple[dict[str, ssl.SSLContext], Path]:
    """A server's context with a certificate of each kind, and a file that vouches for all but the unknown."""
    folder = stage.workshop.folder / "certificates"
    contexts, trusted = {}, []
    for kind in kinds:
        (folder / kind).mkdir(parents=True)
        contexts[kind] = self_signed(
            folder / kind,
            expired=kind == "expired",
            names=["elsewhere.example"],
            address="127.0.0.2" if kind == "wrong host" else "127.0.0.1",
        )
        if kind != "unknown":
            trusted.append((folder / kind / "gateway.pem").read_text())
    (folder / "trusted.pem").write_text("".join(trusted))
    return contexts, folder / "trusted.pem"


def _move(stage: Stage, site: Site, url: str) -> None:
    with stage.workshop.engine.begin() as connection:
        values = {"url": url, "id": site.fleet.gateway_id}
        connection.execute(text("UPDATE gateways SET url = :url WHERE id = :id"), values)


def _before_gateways(stage: Stage) -> list[Proxy]:
    proxies = []
    for site in stage.sites:
        proxies.append(stage.enter(Proxy(urlsplit(site.simulator.url).port or 0, stage.rng)))
        _move(stage, site, f"ws://127.0.0.1:{proxies[-1].port}")
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
    Scenario("wrong certificates of gateways", wrong_certificates, workers=0),
    Scenario("wrong certificates of the broker", wrong_certificates_of_the_broker, workers=0),
    Scenario("silence before gateways", silent_before_gateways),
    Scenario("silence before the broker", silent_before_the_broker, workers=0),
    Scenario("silence before the database", silent_before_the_database, workers=0),
)
