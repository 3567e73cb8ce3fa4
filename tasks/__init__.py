"""Celery tasks: one thin module each, with the name of its task. The work is done in worker/."""
