"""CGI hosts to compare with, run as ``python -m bench.peers.cgi HOST --port PORT -- CMD ARG...``"""
