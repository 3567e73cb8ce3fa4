"""Tokens made ahead are as good as those made on demand, each is given once, and none is shown."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import worker.runtime.token_pool as minting
from worker.runtime.token_pool import MOST_AHEAD, Mint, Minted
from worker.workspace.tokens import verify_token


class Hashing:
    """Stands before the hashing, counts it and can hold it up."""

    def __init__(self) -> None:
        self.done = 0
        self.may_go = threading.Event()
        self.may_go.set()

    def __call__(self, token: str) -> str:
        assert self.may_go.wait(60)
        self.done += 1
        return f"hash of {token}"

    def await_done(self, number: int) -> None:
        deadline = time.monotonic() + 60
        while self.done < number:
            assert time.monotonic() < deadline, self.done
            time.sleep(0.005)


def await_ready(mint: Mint, number: int) -> None:
    """Wait for tokens that were made ahead to lie there: one whose hash is done is not there yet."""
    deadline = time.monotonic() + 60
    while len(mint._ready) < number:
        assert time.monotonic() < deadline, len(mint._ready)
        time.sleep(0.005)


@pytest.fixture
def hashing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hashing]:
    hashing = Hashing()
    monkeypatch.setattr(minting, "hash_token", hashing)
    yield hashing
    hashing.may_go.set()


def test_a_token_made_ahead_verifies_and_one_made_on_demand_does() -> None:
    mint = Mint()
    mint.expect()
    for minted in (mint.take(), mint.take()):
        assert verify_token(minted.plain, minted.hash)


def test_what_is_expected_is_made_ahead_and_not_more(hashing: Hashing) -> None:
    mint = Mint()
    for _ in range(3):
        mint.expect()
    await_ready(mint, 3)
    given = [mint.take() for _ in range(3)]
    assert hashing.done == 3
    mint.take()
    assert hashing.done == 4
    assert len({minted.plain for minted in given}) == 3


def test_nobody_waits_for_one_that_is_being_made(hashing: Hashing) -> None:
    mint = Mint()
    hashing.may_go.clear()
    mint.expect()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(mint.take)
        hashing.may_go.set()
        assert asked.result(60).hash.startswith("hash of ")


def test_no_more_are_kept_than_the_limit(hashing: Hashing) -> None:
    mint = Mint()
    for _ in range(MOST_AHEAD + 20):
        mint.expect()
    await_ready(mint, MOST_AHEAD)
    for _ in range(MOST_AHEAD):
        mint.take()
    mint.take()
    assert hashing.done == MOST_AHEAD + 1


def test_some_are_kept_for_whom_nobody_expects_once_all_is_quiet(
    hashing: Hashing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minting, "QUIET_S", 0.05)
    mint = Mint(kept=2)
    mint.begin()
    await_ready(mint, 2)
    given = {mint.take().plain, mint.take().plain}
    hashing.await_done(4)
    time.sleep(0.1)
    assert (hashing.done, len(given)) == (4, 2)


def test_what_was_taken_is_not_made_up_for_while_others_are_busy(
    hashing: Hashing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minting, "QUIET_S", 60.0)
    mint = Mint(kept=2)
    mint.begin()
    await_ready(mint, 2)
    mint.take()
    time.sleep(0.05)
    assert hashing.done == 2


def test_each_is_given_once_however_many_ask(hashing: Hashing) -> None:
    mint = Mint()

    def ask(_: int) -> str:
        mint.expect()
        return mint.take().plain

    with ThreadPoolExecutor(16) as pool:
        given = list(pool.map(ask, range(400)))
    assert len(set(given)) == 400


def test_its_text_shows_no_token() -> None:
    minted = Minted("the-plain-token", "the-hash")
    assert "the-" not in f"{minted} {minted!r}"
