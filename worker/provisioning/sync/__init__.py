"""The template sync of a gateway (behaviour 30-36): one job, a row an agent, a window of them at a time."""
