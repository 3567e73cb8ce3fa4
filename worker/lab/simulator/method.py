"""One method of the gateway: its parameters, and the function that runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from worker.lab.simulator.params import Shape
from worker.lab.simulator.refusal import JSON


@dataclass(frozen=True, slots=True)
class Method:
    """A method: the ``shape`` of its parameters, and ``run``, which takes them once they are checked.

    ``run`` returns the payload, or raises `Refusal`.
    """

    shape: Shape
    run: Callable[[JSON], Awaitable[JSON]]


def at_once(shape: Shape, run: Callable[[JSON], JSON]) -> Method:
    """A method that never waits, so that no other request interleaves with it."""

    async def handler(params: JSON) -> JSON:
        return run(params)

    return Method(shape, handler)
