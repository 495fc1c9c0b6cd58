"""What is behind ``fastspawn COMMAND``: a module each, imported when it is asked for.

Each has ``main(args)``, which returns the exit status, and ``parser()``, of which the completion
and the manual page are made. Above the library and the server, which do without it.
"""

COMMANDS = {
    "serve": "serve a command over HTTP: a process for each request",
    "work": "run a command for each message of a queue (NATS, Redis)",
    "run": "run one command under limits, and say what it used",
    "explain": "how far a program runs alike, and what forks of it save",
    "doctor": "what this machine gives, and how to get what is missing",
    "bench": "what a process costs here, by each way to start it",
    "top": "what a server does now, from its figures for Prometheus",
    "completion": "what a shell reads to complete all this",
}
"""What is shown of each."""
