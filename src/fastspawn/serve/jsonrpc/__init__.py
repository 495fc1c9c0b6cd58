"""Mode ``jsonrpc``."""
