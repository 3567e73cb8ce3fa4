"""What `make smoke` takes for a failure of the environment, on real processes: npm's end, and a gateway's."""

from __future__ import annotations

import pytest

from tests.integration.lab.openclaw.conftest import NEW
from tests.integration.lab.openclaw.registry import Registry
from tests.smoke.real_release import RealRelease
from tests.smoke.verdicts import EnvironmentFailed, WrongResult


def test_a_release_that_npm_refuses_or_keeps_us_waiting_for(registry: Registry) -> None:
    registry.refuse_with = 403
    with pytest.raises(EnvironmentFailed, match="npm did not install it"):
        RealRelease(NEW).install(60)
    registry.refuse_with = None
    registry.hold.clear()
    with pytest.raises(EnvironmentFailed, match="npm did not install it in 2 s"):
        RealRelease(NEW).install(2)


@pytest.mark.usefixtures("registry")
def test_a_gateway_that_ends_as_it_starts() -> None:
    release = RealRelease(NEW)
    release.install(60)
    with pytest.raises(EnvironmentFailed, match="ended with code 3"), release.gateway(30):
        pass


@pytest.mark.usefixtures("registry")
def test_an_install_that_fails_without_npm_is_not_weather() -> None:
    with pytest.raises(WrongResult):
        RealRelease("newest").install(60)
