"""Plain tokens are in the workspace, in gateways.token and nowhere else (rules.md 29).

All that a worker says, all that goes to the broker, and all that stands in Postgres is searched for them, at
the log level that says most.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
import redis

from tests.integration.agents.fleet import execute, seed_fleet
from tests.integration.worker.workshop import RELEASES, Workshop
from tests.searching import all_keys, all_rows, with_decoded
from worker.gateway.address import GatewayAddress


@dataclass(frozen=True)
class SearchedPlaces:
    """Everything that was said and stored, by place; the secrets by name; an agent that must be found."""

    places: Mapping[str, str]
    secrets: Mapping[str, str]
    agent_id: UUID


class Watch:
    """All commands that reach the broker, message bodies decoded too."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url)
        self._end = f"end of the watch {uuid4()}"
        self._seen: list[str] = []
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._listen)

    def _listen(self) -> None:
        with self._client.monitor() as monitor:  # type: ignore[no-untyped-call]
            self._begun.set()
            for command in monitor.listen():
                if self._end in command["command"]:
                    return
                self._seen.append(command["command"])

    def __enter__(self) -> Watch:
        self._thread.start()
        assert self._begun.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.echo(self._end)
        self._thread.join()
        self._client.close()

    def text(self) -> str:
        return with_decoded("\n".join(self._seen))


@pytest.fixture(scope="module")
def searched(open_workshop: Callable[[], Workshop]) -> SearchedPlaces:
    """A worker at work, on success and on failure, and all that could be seen of it."""
    workshop = open_workshop()
    secrets = {
        "the database's password": urlsplit(workshop.database_url).password or "",
        "the broker's password": urlsplit(workshop.redis_url).password or "",
        "a token in a URL": "token-in-a-url-nobody-may-see",
        "a password in a URL": "password-in-a-url-nobody-may-see",
        "a wrong token": "wrong-token-nobody-may-see",
    }
    with Watch(workshop.redis_url) as watch:
        worker = workshop.start_worker(LOG_LEVEL="DEBUG", RETRY_TIMEOUT_S="1")
        for release in RELEASES:
            place = workshop.place(release)
            agent_id = place.fleet.agent_id
            for _ in range(2):
                assert workshop.ended(workshop.send(agent_id)).status == "succeeded"
            secrets |= {
                f"the agent's token on {release}": place.token(agent_id),
                f"the gateway's token of {release}": place.simulator.token,
            }
            execute(place.engine, "UPDATE gateways SET token = :t", t=secrets["a wrong token"])
            assert workshop.ended(workshop.send(agent_id)).status == "failed"
        leaky = f"ws://u:{secrets['a password in a URL']}@127.0.0.1:9/x?token={secrets['a token in a URL']}"
        for url in (leaky, leaky.replace("ws:", "ftp:"), leaky.replace(":9", ":nine")):
            fleet = seed_fleet(workshop.engine, url=url, token=secrets["a wrong token"])
            assert workshop.ended(workshop.send(fleet.agent_id)).status == "failed"
        worker.stop()
    key = (workshop.folder / "device.pem").read_text().splitlines()
    secrets["the device key"] = next(line for line in key if not line.startswith("-"))
    places = {
        "the log": worker.log(),
        "the broker's commands": watch.text(),
        "the broker's keys": all_keys(workshop.redis_url),
        "the tables": all_rows(workshop.engine),
    }
    return SearchedPlaces(places, secrets, agent_id)


PLACES = ("the log", "the broker's commands", "the broker's keys", "the tables")


@pytest.mark.parametrize("place", PLACES)
def test_no_secret_is_in(searched: SearchedPlaces, place: str) -> None:
    assert len(searched.secrets) == 10
    assert all(len(secret) >= 16 for secret in searched.secrets.values())
    found = [name for name, secret in searched.secrets.items() if secret in searched.places[place]]
    assert found == []


@pytest.mark.parametrize("place", PLACES)
def test_no_hash_of_a_gateways_token_is_in(searched: SearchedPlaces, place: str) -> None:
    for name, secret in searched.secrets.items():
        prints = [sha256(secret.encode()).hexdigest()[:16]]
        prints.append((GatewayAddress("ws://x", secret).token_fingerprint or "")[:16])
        assert all(len(p) == 16 for p in prints)
        assert not any(p in searched.places[place] for p in prints), name


@pytest.mark.parametrize("place", ["the log", "the broker's commands", "the tables"])
def test_the_search_would_find_them(searched: SearchedPlaces, place: str) -> None:
    """The agent's id went the same ways as a leaked token would have gone."""
    assert str(searched.agent_id) in searched.places[place]


def test_an_agents_hash_is_in_its_own_columns_alone(searched: SearchedPlaces) -> None:
    hashes = [
        line.split(" ", 1)[0]
        for line in searched.places["the tables"].splitlines()
        if "pbkdf2_sha256$" in line
    ]
    assert set(hashes) == {"public.agents", "provisioner.agent_credentials"}
    assert "pbkdf2_sha256$" not in searched.places["the log"]
    assert "pbkdf2_sha256$" not in searched.places["the broker's commands"]
