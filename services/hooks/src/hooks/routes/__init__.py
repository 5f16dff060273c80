"""HTTP routes, one file a resource."""

from hooks.routes import connectors, dead_letters, events, hooks, partitions

ROUTES = (*events.ROUTES, *hooks.ROUTES, *dead_letters.ROUTES, *partitions.ROUTES, *connectors.ROUTES)
