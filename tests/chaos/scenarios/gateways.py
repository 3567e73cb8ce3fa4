"""Gateways restart, refuse, drop, fall silent, answer out of order, too much and nonsense, or do not do what
they say they did."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.chaos.scenario import Scenario
from tests.chaos.stage import Stage
from worker.lab.simulator import Fault, Timings
from worker.lab.simulator.fault_schedule import ScheduledFault
from worker.lab.simulator.faults import (
    Delay,
    Drop,
    Endless,
    FakeReply,
    Flood,
    Garble,
    Kind,
    Late,
    NoChallenge,
    Oversized,
    Refuse,
    RefuseConnections,
    RefuseUpgrade,
    Restart,
    Silence,
    Stray,
    Twice,
    Wrong,
    WrongShape,
    busy,
    rate_limited,
)

PAUSE_S = (0.02, 0.3)
WAITING = 12
"""So many faults may wait on a gateway for what they strike; if no such call comes, they are taken back."""
CHANGES = (
    "config.patch",
    "agents.files.set",
    "agents.delete",
    "sessions.patch",
    "sessions.delete",
    "chat.send",
    "cron.scratch.set",
)
READS = ("config.get", "agents.files.list", "agents.files.get", "agents.workspace.list", "cron.list")
LISTS = ("agents.workspace.list", "cron.list")
SHAPES: tuple[WrongShape, ...] = ("text", "list", "number", "empty", "absent", "frame is a list", "not JSON")
PAYLOADS = ("NaN", "1e999", '"\\ud800"', "[" * 5_000 + "]" * 5_000, "{")
_OFTEN_TICKING = Timings(tick_s=1.0)
"""A connection counts as dead after two and a half ticks."""

Choose = Callable[[random.Random], Fault]


def restarts(rng: random.Random) -> Fault:
    """The gateway restarts in place of an answer, before or after the work, or just after the answer."""
    kind = Restart(
        carried_out=rng.random() < 0.5,
        answered=rng.random() < 0.3,
        delay_s=rng.uniform(0, 0.2),
        down_s=rng.uniform(0, 0.5),
    )
    return _somewhere(rng, kind)


def refusals(rng: random.Random) -> Fault:
    """The gateway says that it cannot serve now: on upgrade, on connect and later."""
    starting = Refuse("gateway starting; retry shortly", retryable=True, retry_after_ms=300)
    return rng.choice(
        [
            Fault(RefuseUpgrade(rng.choice((502, 503))), times=rng.randint(1, 3)),
            Fault(starting, "connect", times=rng.randint(1, 3)),
            Fault(Drop(), rng.choice(READS)),  # so that there is an upgrade to refuse
            Fault(RefuseConnections(rng.uniform(0.1, 0.5)), rng.choice(READS)),
            rate_limited(after_s=1, times=rng.randint(1, 2)),
            busy(rng.choice(CHANGES + READS), times=rng.randint(1, 5)),
            busy(times=rng.randint(1, 5)),
        ]
    )


def disorder(rng: random.Random) -> Fault:
    """Answers that are lost, late, doubled, nobody's, or among thousands of events."""
    kinds: list[Kind] = [
        Drop(carried_out=rng.random() < 0.5),
        Delay(rng.uniform(0.1, 2.0), carried_out=rng.random() < 0.5),
        Twice(),
        Stray(answers=rng.randint(1, 50)),
        Flood(events=rng.randint(100, 2_000), size=rng.randint(1, 2_000)),
    ]
    if rng.random() < 0.1:
        return Fault(Late(behind=rng.randint(1, 3)), "agents.files.set")  # a call that others follow
    return _somewhere(rng, rng.choice(kinds))


def silence(rng: random.Random) -> Fault:
    """The gateway takes a request or a connection, and says nothing more."""
    return Fault(NoChallenge()) if rng.random() < 0.2 else _somewhere(rng, Silence(rng.random() < 0.5))


def nonsense(rng: random.Random) -> Fault:
    """Answers that no gateway gives: wrong types, no JSON, frames over the limit, pages without end."""
    method = rng.choice(CHANGES + READS)
    return rng.choice(
        [
            Fault(Wrong(rng.choice(SHAPES)), method),
            Fault(Garble(payload=rng.choice(PAYLOADS)), method),
            Fault(Oversized(), method),
            Fault(Endless(), rng.choice(LISTS), times=rng.randint(1, 3)),
            Fault(Refuse("no such thing", "INVALID_REQUEST"), method),
        ]
    )


def lies(rng: random.Random) -> Fault:
    """The gateway says ok, and has done nothing.

    The product looks whether the config and the file that carries the token were written, and fails with a
    sentence if not. Of all other files it sees at the next look that they are older than they should be.
    """
    method = rng.choice(("config.patch", "agents.files.set", "agents.files.set", "cron.scratch.set"))
    return Fault(FakeReply(), method, nth=rng.randint(1, 8))


def struck_by(choose: Choose, most: int, *, jobs_may_fail: bool = False) -> Callable[[Stage], None]:
    """A play in which one fault after another, ``most`` in all, strikes one of the gateways.

    With ``jobs_may_fail``, a job that met one may end with a sentence; it is then asked for again until it
    succeeds.
    """

    def play(stage: Stage) -> None:
        ordered: list[ScheduledFault] = []

        def strike() -> None:
            faults = stage.rng.choice(stage.sites).simulator.faults
            if len(faults.outstanding) >= WAITING:
                faults.clear()
            waiting = sum(len(site.simulator.faults.outstanding) for site in stage.sites)
            if waiting + sum(fault.happened for fault in ordered) < most:
                ordered.append(faults.schedule(choose(stage.rng)))

        stage.asks_again = jobs_may_fail
        with stage.disturbed_by(strike, PAUSE_S):
            stage.commission()
        for site in stage.sites:
            site.simulator.faults.clear()
        stage.broken += sum(fault.happened for fault in ordered)

    play.__doc__ = choose.__doc__
    return play


def _somewhere(rng: random.Random, kind: Kind) -> Fault:
    """The kind at any of the next calls, or at the next of one method."""
    if rng.random() < 0.8:
        return Fault(kind, nth=rng.randint(1, 4))
    return Fault(kind, rng.choice(CHANGES + READS))


def lied_to(stage: Stage) -> None:
    """Gateways lie, and then a sync writes what they never wrote."""
    struck_by(lies, 60, jobs_may_fail=True)(stage)
    stage.done(stage.syncs())


SCENARIOS = (
    Scenario("gateways that restart", struck_by(restarts, 100)),
    Scenario("gateways that refuse", struck_by(refusals, 60)),
    Scenario("gateways in disorder", struck_by(disorder, 150)),
    Scenario("gateways that fall silent", struck_by(silence, 8), timings=_OFTEN_TICKING),
    Scenario("gateways that answer nonsense", struck_by(nonsense, 60, jobs_may_fail=True)),
    Scenario("gateways that lie", lied_to),
)
