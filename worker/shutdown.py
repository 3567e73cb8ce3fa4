"""The flag that ends every wait of this process when it is told to stop."""

from __future__ import annotations

import threading

shutting_down = threading.Event()
"""Set by SIGTERM: waits and backoffs end at once, bodies park their rows (celery.md 3)."""
