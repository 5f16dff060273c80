"""HTTP routes of storage: parse, call, respond. No rules."""

from shared.http.routes import Route
from storage.routes import connectors, media, objects, widgets

ROUTES: tuple[Route, ...] = (
    *media.ROUTES,
    *objects.ROUTES,
    *widgets.ROUTES,
    *connectors.ROUTES,
    *objects.LOCAL_ROUTES,
)
