"""A gateway to try things on: it behaves as gateways.md 1-8 says of 2026.2.12, 2026.3.13 and 2026.9.6.

The demo, ``serve`` and tests use it; nothing else here imports it.
"""

from worker.simulator.faults import Fault
from worker.simulator.journal import Call
from worker.simulator.known_releases import RELEASES
from worker.simulator.orders import Order
from worker.simulator.pace import MEASURED, QUICK, Pace
from worker.simulator.simulator import Simulator

__all__ = ["MEASURED", "QUICK", "RELEASES", "Call", "Fault", "Order", "Pace", "Simulator"]
