"""What an operator sees of jobs, syncs, plans and files, on a page or live."""
