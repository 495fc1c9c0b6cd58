"""How the process for a request comes to be."""
