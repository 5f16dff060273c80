"""Ports of loopback: free ones, and whether one is taken."""

import contextlib
import socket

from shared.errors import ConflictError, InvalidError

HIGHEST = 65535


def free_ports(count: int) -> list[int]:
    """
    Ports that were free a moment ago, each another one.

    Another process may take one first; the caller then tries others.
    """
    with contextlib.ExitStack() as held:
        listeners = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """True when a server could listen there now."""
    with socket.socket() as listener:
        # As servers do: a port whose last connections still linger is free to them.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError:
            return False
        return True


def check_free(port: int, what: str, host: str = "127.0.0.1") -> int:
    """Return the port, or raise `ConflictError` in one line."""
    if not is_free(port, host):
        raise ConflictError(f"port {port} for {what} is taken by another process")
    return port


def check_port(port: int, option: str, *, count: int = 1) -> int:
    """Return the first of `count` ports. Raises `InvalidError` where one of them cannot be a port."""
    if not 1 <= port <= HIGHEST + 1 - count:
        raise InvalidError(f"expected a port from 1 to {HIGHEST + 1 - count}, got {port}", field=option)
    return port
