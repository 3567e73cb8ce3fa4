"""Shows an operator jobs, syncs, plans and files, on a page or live."""
