"""Peers in Python, run as ``python -m bench.peers.python.NAME`` from the repository root."""
