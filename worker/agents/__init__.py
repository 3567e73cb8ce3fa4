"""The steps of one agent's job: roster entry, files, credentials and wake, or delete."""
