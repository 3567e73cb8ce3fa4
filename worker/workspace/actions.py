"""What becomes of a workspace file: the actions in ``job_agents.files`` (interfaces.md 4)."""

from __future__ import annotations

from typing import Literal

Action = Literal["create", "update", "merge", "unchanged", "preserved", "conflict", "absent", "unsupported"]
"""What becomes of a file. ``merge``: our changes are written between the agent's; ``conflict``: it is left as
it is, because both sides changed the same lines, what we wrote last is not known, or it is an adopted agent's
owner's; ``absent``: a job that adopts creates none."""
WRITES = ("create", "update", "merge")
"""The actions that write a file; a roster entry has the first two."""
