"""HTTP routes of the service, one file a resource."""

from ftp_gateway.routes import accounts, files, operator, remotes
from shared.http.routes import Route

ROUTES: tuple[Route, ...] = (*accounts.ROUTES, *remotes.ROUTES, *files.ROUTES, *operator.ROUTES)
