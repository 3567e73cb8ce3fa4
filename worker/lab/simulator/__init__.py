"""A simulated gateway that behaves as gateways.md 1-8 says of 2026.2.12, 2026.3.13 and 2026.9.6.

The demo, ``serve`` and the tests use it; nothing else imports it.
"""

from worker.lab.simulator.fault_schedule import ScheduledFault
from worker.lab.simulator.faults import Fault
from worker.lab.simulator.journal import Call
from worker.lab.simulator.known_releases import RELEASES
from worker.lab.simulator.simulator import Simulator
from worker.lab.simulator.timings import MEASURED, QUICK, Timings

__all__ = ["MEASURED", "QUICK", "RELEASES", "Call", "Fault", "ScheduledFault", "Simulator", "Timings"]
