"""State of the running service, as its routes and handlers see it."""

from collections.abc import Callable

from msgspec import Struct

from ftp_gateway.access.accounts import Passwords
from ftp_gateway.access.defender import Defender
from ftp_gateway.model.rules import Rules
from ftp_gateway.processing.history import History
from ftp_gateway.remotes.service import Desk
from ftp_gateway.spool.store import Spool
from shared.mail import Mailer
from shared.messaging.bus import Bus


class State(Struct, frozen=True, kw_only=True):
    """What the routes work on."""

    bus: Bus
    spool: Spool
    rules_of: Callable[[str], Rules]
    passwords: Passwords
    defender: Defender
    mailer: Mailer
    remotes: Desk

    @property
    def history(self) -> History:
        """The files of all apps."""
        return History(self.bus, self.spool, self.rules_of)
