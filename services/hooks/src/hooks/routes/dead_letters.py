"""Routes of dead letters. They parse, call and answer; no rules."""

import re
from datetime import datetime
from typing import Annotated, Final

from msgspec import Meta, Struct

from hooks.dead_letters.replay_run import ReplayReply
from hooks.dead_letters.store import DeadLetterFilter, StoredDeadLetter
from hooks.state import State
from shared.contracts.messages import decode
from shared.errors import InvalidError, NotFoundError
from shared.http.routes import Query, Route
from shared.http.server import Call

PATH = "/v1/apps/{app_key}/dead-letters"

PAGE = 50
MOST = 500
PAGE_BYTES = 8 << 20
"""Approximate size of the dead letters of a page: a page of large ones is shorter."""
BODY_CHARACTERS = 1024
"""Limit on each body in a page. A dead letter that is read alone has its whole body."""

NUMBER: Final = re.compile(r"[1-9][0-9]{0,17}")
"""A sequence of a stream: more digits than one will ever have."""

# Each becomes one token of a subject.
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$(?!\n)")]
Moment = Annotated[datetime, Meta(tz=True)]
Number = Annotated[int, Meta(ge=0, lt=1 << 62)]


class DeadLetterSummary(Struct, frozen=True, kw_only=True):
    """A dead letter in a list. `id` grows with the time `at`. `body` is the beginning, `body_bytes` the whole size."""

    id: int
    at: datetime
    hook: str
    reason: str
    message: str
    source: str
    attempts: int
    body: str
    body_bytes: int


class DeadLetterPage(Struct, frozen=True, kw_only=True):
    """A page, the oldest first. `next` is `after` of the next page, and null on the last one."""

    letters: tuple[DeadLetterSummary, ...]
    next: int | None


class ReplayForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    The dead letters to send again, the number for this call, and the pace. `since` and `until` are RFC 3339.

    `after` is `next` of the call before, with the same filter.
    """

    hook: Name | None = None
    reason: Name | None = None
    since: Moment | None = None
    until: Moment | None = None
    after: Annotated[str, Meta(pattern=r"^[0-9]{1,18}-[0-9]{1,18}$(?!\n)")] | None = None
    limit: Annotated[int, Meta(ge=1, le=5000)] = 1000
    per_second: Annotated[float, Meta(ge=1, le=10_000)] = 500
    dry_run: bool = False


class PurgeReply(Struct, frozen=True, kw_only=True):
    """The number of dead letters that were deleted."""

    purged: int


async def list_dead_letters(call: Call[State]) -> DeadLetterPage:
    """List a page of dead letters."""
    selection = _selection(call)
    found, following = await call.state.dead_letters.read(
        selection, after=call.query_values["after"], limit=call.query_values["limit"], max_bytes=PAGE_BYTES
    )
    return DeadLetterPage(letters=tuple(map(_summary, found)), next=following)


async def get_dead_letter(call: Call[State]) -> StoredDeadLetter:
    """One dead letter, whole."""
    id = call.path["id"]
    if not NUMBER.fullmatch(id):
        raise NotFoundError("there is no such dead letter")
    return await call.state.dead_letters.get(call.app_key, int(id))


async def replay(call: Call[State]) -> ReplayReply:
    """Replay dead letters."""
    form = decode(await call.read_json() or b"{}", ReplayForm)
    selection = DeadLetterFilter(
        app_key=call.app_key, hook=form.hook, reason=form.reason, since=form.since, until=form.until
    )
    return await call.state.replays.run(
        _checked(selection), after=form.after, limit=form.limit, per_second=form.per_second, dry_run=form.dry_run
    )


async def purge(call: Call[State]) -> PurgeReply:
    """Delete dead letters."""
    return PurgeReply(purged=await call.state.dead_letters.purge(_selection(call)))


def _selection(call: Call[State]) -> DeadLetterFilter:
    asked = call.query_values
    return _checked(
        DeadLetterFilter(
            app_key=call.app_key,
            hook=asked["hook"],
            reason=asked["reason"],
            since=asked["since"],
            until=asked["until"],
        )
    )


def _checked(selection: DeadLetterFilter) -> DeadLetterFilter:
    if selection.since is not None and selection.until is not None and selection.since >= selection.until:
        raise InvalidError("expected a time after `since`", field="until")
    return selection


def _summary(letter: StoredDeadLetter) -> DeadLetterSummary:
    return DeadLetterSummary(
        id=letter.id,
        at=letter.at,
        hook=letter.hook,
        reason=letter.reason,
        message=letter.message,
        source=letter.source,
        attempts=letter.attempts,
        body=letter.body[:BODY_CHARACTERS],
        body_bytes=len(letter.body.encode()),
    )


HOOK = Query("Only those of this hook, or of `entrance`", Name)
REASON = Query("Only those for this reason, such as `oversize`", Name)
SINCE = Query("Only those stored then or later, RFC 3339", Moment)
UNTIL = Query("Only those stored before, RFC 3339", Moment)

ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        PATH,
        list_dead_letters,
        "List dead letters, the oldest first",
        reply=DeadLetterPage,
        query={
            "hook": HOOK,
            "reason": REASON,
            "since": SINCE,
            "until": UNTIL,
            "limit": Query("How many at most", Annotated[int, Meta(ge=1, le=MOST)], PAGE),
            "after": Query("`next` of the page before", Number, 0),
        },
    ),
    Route("GET", f"{PATH}/{{id:[0-9]+}}", get_dead_letter, "Return one dead letter, whole", reply=StoredDeadLetter),
    Route(
        "POST",
        f"{PATH}/replay",
        replay,
        "Send dead letters again as they were rendered, in order, and delete those that are confirmed",
        body=ReplayForm,
        reads_body=True,
        body_required=False,
        reply=ReplayReply,
    ),
    Route(
        "DELETE",
        PATH,
        purge,
        "Delete dead letters",
        reply=PurgeReply,
        query={"hook": HOOK, "reason": REASON, "since": SINCE, "until": UNTIL},
    ),
)
