"""Messages from the broker before Celery makes tasks of them: read without trust, normalized, or dropped."""
