"""Modes streaming and serializing: requests and answers as of-watchdog of OpenFaaS has them."""
