"""
TCP connections to hosts that customers name; a host inside our own network is refused.
"""

import asyncio
import os
import socket

from shared.errors import DeniedError, UnavailableError
from shared.private_addresses import PrivateAddressError, public_socket

CONNECT_S = 15.0


async def dial(host: str, port: int, *, allow_private: bool) -> socket.socket:
    """
    Return a connected, non-blocking socket. The checked address is the one that is connected to.

    Raises:
        DeniedError: The host is inside our own network, and that is not allowed.
        UnavailableError: No server answers there.
    """
    loop = asyncio.get_running_loop()
    failure = "no address"
    try:
        async with asyncio.timeout(CONNECT_S):
            for address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                family, kind, protocol, _, where = address
                connection = socket.socket(family, kind, protocol) if allow_private else public_socket(address)
                try:
                    connection.setblocking(False)
                    await loop.sock_connect(connection, where)
                except OSError as error:
                    connection.close()
                    # asyncio's own text is that of a call, with the address once more.
                    failure = os.strerror(error.errno) if error.errno else str(error)
                except BaseException:
                    connection.close()
                    raise
                else:
                    return connection
    except PrivateAddressError:
        raise DeniedError("the host is not reachable from the internet") from None
    except TimeoutError:
        failure = f"no answer within {CONNECT_S:g} s"
    except OSError as error:
        failure = error.strerror or str(error)
    raise UnavailableError(f"{host}:{port} cannot be reached: {failure}")
