"""The scenarios of chaos, by what they break; each is played on a stage, and then the oracle looks."""

from __future__ import annotations

from tests.chaos.scenario import Scenario
from tests.chaos.scenarios import (
    gateways,
    isolation,
    killing,
    long_run,
    messages,
    networks,
    restored,
    services,
)

SCENARIOS: tuple[Scenario, ...] = (
    *killing.SCENARIOS,
    *services.SCENARIOS,
    *restored.SCENARIOS,
    *networks.SCENARIOS,
    *gateways.SCENARIOS,
    *messages.SCENARIOS,
    *isolation.SCENARIOS,
    *long_run.SCENARIOS,
)
