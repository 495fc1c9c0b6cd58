"""HTTP/1.1 on a connection: bytes to requests, output to answers."""
