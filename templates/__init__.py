"""Jinja templates of the workspace files; `worker.workspace.files` says which file has which."""
