"""Web applications, and the servers that keep them in long-lived processes, or in none."""
