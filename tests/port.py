"""A port for a server of a test's own."""

import socket


def free_port(address: str = "127.0.0.1") -> int:
    """Return a port that nobody listens on, of the system's choice: two runs side by side get two."""
    with socket.socket() as free:
        free.bind((address, 0))
        port: int = free.getsockname()[1]
        return port
