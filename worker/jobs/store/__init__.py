"""The store: all SQL that writes ``jobs`` and ``job_agents``, by subject (decisions.md D5).

Claims are leases on Postgres's clock with a generation: what a worker writes under an older generation is
rejected. A row in status ``running`` holds its agent whether it is leased or parked; ``next_attempt_at`` is
when the clock publishes it again, ``published_at`` is set while a message for it is on its way.
"""
