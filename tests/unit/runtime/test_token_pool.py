"""Tokens made ahead are as good as those made on demand, each is given once, and none is shown."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from worker.runtime import token_pool
from worker.runtime.token_pool import MOST_AHEAD, NewToken, TokenPool
from worker.workspace.tokens import verify_token


class Hashing:
    """Stands in for the hashing, counts it and can hold it up. It does not count what the threads of earlier
    tests' pools still do."""

    def __init__(self) -> None:
        self._earlier = set(threading.enumerate()) - {threading.current_thread()}
        self.done = 0
        self.may_go = threading.Event()
        self.may_go.set()

    def __call__(self, token: str) -> str:
        if threading.current_thread() in self._earlier:
            return "hash for another test"
        assert self.may_go.wait(60)
        self.done += 1
        return f"hash of {token}"

    def await_done(self, number: int) -> None:
        deadline = time.monotonic() + 60
        while self.done < number:
            assert time.monotonic() < deadline, self.done
            time.sleep(0.005)


def await_ready(pool: TokenPool, number: int) -> None:
    """Wait for tokens that were made ahead to lie there: one whose hash is done is not there yet."""
    deadline = time.monotonic() + 60
    while len(pool._ready) < number:
        assert time.monotonic() < deadline, len(pool._ready)
        time.sleep(0.005)


@pytest.fixture
def hashing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hashing]:
    hashing = Hashing()
    monkeypatch.setattr(token_pool, "hash_token", hashing)
    yield hashing
    hashing.may_go.set()


def test_a_token_made_ahead_verifies_and_one_made_on_demand_does() -> None:
    pool = TokenPool()
    pool.expect()
    for minted in (pool.take(), pool.take()):
        assert verify_token(minted.plain, minted.hash)


def test_what_is_expected_is_made_ahead_and_not_more(hashing: Hashing) -> None:
    pool = TokenPool()
    for _ in range(3):
        pool.expect()
    await_ready(pool, 3)
    given = [pool.take() for _ in range(3)]
    assert hashing.done == 3
    pool.take()
    assert hashing.done == 4
    assert len({minted.plain for minted in given}) == 3


def test_nobody_waits_for_one_that_is_being_made(hashing: Hashing) -> None:
    pool = TokenPool()
    hashing.may_go.clear()
    pool.expect()
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(pool.take)
        hashing.may_go.set()
        assert asked.result(60).hash.startswith("hash of ")


def test_no_more_are_kept_than_the_limit(hashing: Hashing) -> None:
    pool = TokenPool()
    for _ in range(MOST_AHEAD + 20):
        pool.expect()
    await_ready(pool, MOST_AHEAD)
    for _ in range(MOST_AHEAD):
        pool.take()
    pool.take()
    assert hashing.done == MOST_AHEAD + 1


def test_some_are_kept_for_whom_nobody_expects_once_all_is_quiet(
    hashing: Hashing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_pool, "QUIET_S", 0.05)
    pool = TokenPool(stock=2)
    pool.start()
    await_ready(pool, 2)
    given = {pool.take().plain, pool.take().plain}
    hashing.await_done(4)
    time.sleep(0.1)
    assert (hashing.done, len(given)) == (4, 2)


def test_what_was_taken_is_not_made_up_for_while_others_are_busy(
    hashing: Hashing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_pool, "QUIET_S", 60.0)
    pool = TokenPool(stock=2)
    pool.start()
    await_ready(pool, 2)
    pool.take()
    time.sleep(0.05)
    assert hashing.done == 2


def test_each_is_given_once_however_many_ask(hashing: Hashing) -> None:
    pool = TokenPool()

    def ask(_: int) -> str:
        pool.expect()
        return pool.take().plain

    with ThreadPoolExecutor(16) as threads:
        given = list(threads.map(ask, range(400)))
    assert len(set(given)) == 400


def test_its_text_shows_no_token() -> None:
    minted = NewToken("the-plain-token", "the-hash")
    assert "the-" not in f"{minted} {minted!r}"
