"""The application with Celery's own consumer: tells when ReconnectSafeConsumer is no longer needed."""

from worker.app import app

app.conf.worker_consumer = "celery.worker.consumer:Consumer"
