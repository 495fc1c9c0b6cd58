"""Which command a request runs, and when."""
