"""The benchmark: ``python -m bench`` from the repository root. See README.md in this folder."""
