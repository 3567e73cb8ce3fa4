"""doctor on simulated gateways with everything wrong at once; tests/gateways has the same on real ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.integration.cli.conftest import Provisioner
from tests.integration.cli.inconsistent import TOKEN, VARIABLES, InconsistentGateway, assert_all_found
from worker.lab.simulator import Simulator


@pytest.mark.parametrize("release", ["2026.2.12", "2026.3.13", "2026.9.6"])
def test_every_fault_is_named_with_its_cure(
    provisioner: Provisioner, engine: Engine, tmp_path: Path, release: str
) -> None:
    inconsistent = InconsistentGateway(engine, release)
    simulator = Simulator(
        release, token=TOKEN, state_dir=tmp_path / "state", config=inconsistent.config, environment=VARIABLES
    )
    with simulator:
        inconsistent.settle(simulator.url)
        before = simulator.config_path.read_bytes()
        assert_all_found(provisioner, release)
        assert simulator.config_path.read_bytes() == before
