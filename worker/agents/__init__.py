"""One agent's steps, as a job's row goes through them: roster entry, files, credentials, wake, or delete."""
