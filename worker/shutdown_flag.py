"""The flag that ends every wait of this process when it must stop.

On SIGTERM, `worker.lifecycle` sets the flag, lets running tasks go on, and closes all gateway connections
after `BREAK_OFF_S` seconds.
"""

from __future__ import annotations

import threading

shutting_down = threading.Event()
"""Set on SIGTERM. Once it is set, waits end at once, and tasks that waited park their rows (celery.md 3)."""
