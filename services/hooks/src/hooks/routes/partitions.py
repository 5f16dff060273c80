"""Routes of partitions. They parse, call and answer; no rules."""

from hooks.assignment.status import AssignmentOverview
from hooks.state import State
from shared.http.routes import Route
from shared.http.server import Call


async def get_partitions(call: Call[State]) -> AssignmentOverview:
    """The replicas, and the owner of each partition."""
    return await call.state.assignment.read()


ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/v1/partitions",
        get_partitions,
        "The replicas, and the owner, floor and lag of each partition",
        reply=AssignmentOverview,
        scope="admin",
    ),
)
