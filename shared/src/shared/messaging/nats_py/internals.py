"""
Private names of nats-py that we use: the only file that names them.

They allow a parser of our own (`shared.messaging.nats_py.parser`) and many messages in one write
(`Bus.publish_together`). `check_internals` runs before each connect, and shared/pyproject.toml bounds the version.
"""

from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.protocol.parser import Parser

from shared.runtime.internals import mentions, refuse_moved_names


def check_internals() -> None:
    """Check the private names. Raises `UnavailableError` when this nats-py has moved one."""
    refuse_moved_names(
        "nats-py",
        {
            "Client._ps": mentions(Client.__init__, "_ps") and mentions(getattr(Client, "_read_loop", None), "_ps"),
            "Client._send_command": hasattr(Client, "_send_command"),
            "Subscription._id": mentions(Subscription.__init__, "_id"),
            "Parser.parse": hasattr(Parser, "parse"),
            "Parser.reset": hasattr(Parser, "reset"),
        },
    )


def use_parser(client: Client, parser: Parser) -> None:
    """Let the client parse what it reads with this parser."""
    client._ps = parser


async def send_commands(client: Client, commands: bytes) -> None:
    """Queue commands of the protocol; they leave with the next message that goes the library's way."""
    await client._send_command(commands)


def subscription_number(subscription: Subscription) -> int:
    """The number by which the server names a subscription in its messages."""
    return subscription._id
