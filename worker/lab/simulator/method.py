"""One method of the gateway: the parameters it takes, and what runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from worker.lab.simulator.params import Shape
from worker.lab.simulator.refusal import JSON


@dataclass(frozen=True, slots=True)
class Method:
    """``run`` takes checked parameters and returns the payload, or raises `Refusal`."""

    shape: Shape
    run: Callable[[JSON], Awaitable[JSON]]


def at_once(shape: Shape, run: Callable[[JSON], JSON]) -> Method:
    """A method that never waits, so no other request comes between its reads and writes."""

    async def handler(params: JSON) -> JSON:
        return run(params)

    return Method(shape, handler)
