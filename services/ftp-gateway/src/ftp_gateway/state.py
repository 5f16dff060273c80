"""State of the running service, as its routes and handlers see it."""

from collections.abc import Callable

from msgspec import Struct

from ftp_gateway.access.accounts import Passwords
from ftp_gateway.access.defender import Defender
from ftp_gateway.model.rules import FileRules
from ftp_gateway.processing.history import FileHistory
from ftp_gateway.remotes.service import RemoteService
from ftp_gateway.spool.store import Spool
from shared.mail import Mailer
from shared.messaging.bus import Bus


class State(Struct, frozen=True, kw_only=True):
    """Parts of the service that its routes work on."""

    bus: Bus
    spool: Spool
    rules_of: Callable[[str], FileRules]
    passwords: Passwords
    defender: Defender
    mailer: Mailer
    remotes: RemoteService

    @property
    def history(self) -> FileHistory:
        """History of the files of all apps."""
        return FileHistory(self.bus, self.spool, self.rules_of)
