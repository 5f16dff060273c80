"""
`millrace alerts`: the alerts of the services, the last ones and those that come. They are kept for thirty days in the
stream `ALERTS`, which a program may read as the user `operator` of NATS too.
"""

import argparse
import sys
from collections.abc import AsyncIterator

from millrace.mesh.access import add_data_argument, find_access, open_bus
from millrace.terminal.event_loop import run_async
from shared.contracts.messages import Alert, decode, encode
from shared.contracts.services import SERVICE_NAMES
from shared.contracts.streams import ALERTS
from shared.contracts.subjects import alert, check_app_key, parse_alert
from shared.errors import InvalidError
from shared.messaging.bus import Bus
from shared.messaging.consumers import open_scan
from shared.messaging.message import Message
from shared.messaging.reverse_scan import ranges_back

LAST = 20
MOST = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `millrace alerts`."""
    add_data_argument(parser)
    parser.add_argument("--last", type=int, default=LAST, metavar="N", help="show the last N first [%(default)s]")
    parser.add_argument("--follow", action="store_true", help="go on with those that come, until Ctrl-C")
    parser.add_argument("--app", default="*", metavar="KEY", help="only those of this app; - for those of none")
    parser.add_argument("--service", default="*", choices=SERVICE_NAMES, help="only those of this service")
    parser.add_argument("--json", action="store_true", help="print each as one line of JSON")


def run(args: argparse.Namespace) -> int:
    """Print alerts. Raises `InvalidError` for an app that cannot be, or a number out of bounds."""
    if not 0 <= args.last <= MOST:
        raise InvalidError(f"expected 0 to {MOST}", field="--last")
    if args.app != "*":
        check_app_key(args.app)
    return run_async(_run(args))


async def _run(args: argparse.Namespace) -> int:
    subject = alert(args.service, args.app, "*")
    async with open_bus(find_access(args.data)) as bus:
        end = (await bus.stream_state(ALERTS)).last_sequence + 1
        for found in await read_last(bus, subject, end=end, most=args.last):
            _print(found, as_json=args.json)
        if args.follow:
            async for found in follow(bus, subject, start=end):
                _print(found, as_json=args.json)
    return 0


async def read_last(bus: Bus, subject: str, *, end: int, most: int) -> list[Alert]:
    """
    The last alerts before the sequence `end`, the oldest first.

    Raises:
        UnavailableError: NATS does not answer.
    """
    found: list[Message] = []
    if most:
        first = (await bus.stream_state(ALERTS)).first_sequence
        async for part in ranges_back(bus, ALERTS, subject, end=end, first_sequence=first):
            found[:0] = part.messages
            if len(found) >= most:
                break
    return [_decode(message) for message in found[len(found) - min(most, len(found)) :]]


async def follow(bus: Bus, subject: str, *, start: int) -> AsyncIterator[Alert]:
    """Yield the alerts from the sequence `start` on, as they come."""
    async with open_scan(bus, ALERTS, subject=subject, start_sequence=start) as scan:
        while True:
            for message in await scan.next(100):
                yield _decode(message)


def _decode(message: Message) -> Alert:
    try:
        return decode(message.data, Alert)
    except InvalidError as error:
        service, app_key, kind = parse_alert(message.subject)
        text = f"this alert cannot be read: {error.message}"
        return Alert(service=service, app_key=app_key, kind=kind, subject="-", message=text, at=message.at)


def _print(found: Alert, *, as_json: bool) -> None:
    # At once, for a program that reads them from a pipe.
    sys.stdout.write(f"{encode(found).decode() if as_json else line_of(found)}\n")
    sys.stdout.flush()


def line_of(found: Alert) -> str:
    """One line for a terminal, without control characters: an alert may hold the text of a tenant."""
    where = f"{found.service} {found.app_key or '-'} {found.kind}"
    text = f"{found.at:%Y-%m-%d %H:%M:%S}  {where}  {found.subject}: {found.message}"
    return "".join(character if character.isprintable() else " " for character in text)
