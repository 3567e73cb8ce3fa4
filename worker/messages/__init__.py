"""Reads untrusted messages from the broker, and normalizes or drops each before Celery makes a task of it."""
