"""A port of this machine for pages that a command serves to its user."""

import socket

from mat2spec.errors import ConfigError

HOST = "127.0.0.1"

PORTS = 20
"""Ports that are tried, one after the other."""


def bind(port: int) -> socket.socket:
    """Take a port, or the next one that is free, on this machine only.

    Raises:
        ConfigError: If none of PORTS is.
    """
    last = min(port + PORTS, 65536)
    for candidate in range(port, last):
        try:
            return socket.create_server((HOST, candidate))
        except OSError:
            continue
    raise ConfigError(f"--port: ports {port} to {last - 1} are in use or not allowed; choose another")
