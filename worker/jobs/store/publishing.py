"""When a message that was published is taken for lost."""

from __future__ import annotations

REPUBLISH_AFTER_S = 60
"""A queued job's message that has not led to its beginning within this time is taken for lost; it may only
stand in a long queue."""
LOST_AFTER_S = 15
"""The same of work that was begun: a worker that is killed takes along what it has received, and not claimed
yet. One message too many is dropped; a row that waits for nothing holds its agent."""
