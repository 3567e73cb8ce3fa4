"""The template sync of a gateway (rules.md 30-36): one job, a row an agent, a window of them at a time."""
