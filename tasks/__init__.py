"""Celery tasks, one thin module for each, named like its task; worker.sync and worker.agents do the work."""
