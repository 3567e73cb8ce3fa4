"""The flag that ends every wait of this process when it must stop.

On SIGTERM `worker.lifecycle` sets it, lets tasks at work go on, and closes all gateway connections after
`BREAK_OFF_S` seconds.
"""

from __future__ import annotations

import threading

shutting_down = threading.Event()
"""Set by SIGTERM: waits and backoffs then end at once, and task bodies park their rows (celery.md 3)."""
