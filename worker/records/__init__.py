"""Reads and writes what the tables, ours and Mission Control's, say about agents, places and gateways."""
