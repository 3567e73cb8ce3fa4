"""All SQL that writes ``jobs`` and ``job_agents``, by subject; a test finds any other (decisions.md D5).

A claim is a lease on Postgres's clock with a generation; writes under an older generation are rejected. A row
in status ``running`` holds its agent, leased or parked. ``next_attempt_at`` is when the dispatcher publishes
the row (again); ``published_at`` is set while a message for it is on its way. Whatever ends a job sets
its ``finished_at`` to now(): triggers then send NOTIFY provisioner_jobs (decisions.md D17).

A function that returns messages has marked their rows as published; the caller sends the messages after the
commit. A function named ``make_..._due`` marks nothing; the dispatcher publishes the rows.
"""
