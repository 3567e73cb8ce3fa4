"""Agents, their places, their files and their gateways, as Mission Control's tables and ours have them."""
