"""Mode ``ws``."""
