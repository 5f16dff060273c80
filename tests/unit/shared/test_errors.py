"""The kinds of error, and their translations."""

import pytest

from shared.errors import KINDS, BusyError, MillraceError, StreamFullError, UnavailableError
from shared.http.answers import error_response
from shared.http.openapi import STATUS


def subclasses(kind: type[MillraceError]) -> set[type[MillraceError]]:
    return {sub for child in kind.__subclasses__() for sub in {child, *subclasses(child)}}


def test_every_kind_is_listed_by_its_code() -> None:
    kinds = {kind for kind in subclasses(MillraceError) if kind.__module__ == MillraceError.__module__}

    # A full stream is told as busy; the kind is for who published.
    assert set(KINDS.values()) == kinds - {StreamFullError}
    assert all(code == kind.code for code, kind in KINDS.items())


def test_every_kind_has_an_http_status() -> None:
    assert set(STATUS) == {*KINDS, MillraceError.code}


def test_only_busy_and_unavailable_errors_are_retryable() -> None:
    assert {kind for kind in KINDS.values() if kind.retryable} == {BusyError, UnavailableError}


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.code)
def test_the_answer_contains_code_message_and_field(kind: type[MillraceError]) -> None:
    response = error_response(kind("what happened", field="rows[3].text"))

    assert response.status == STATUS[kind.code]
    assert response.text == (f'{{"error":{{"code":"{kind.code}","message":"what happened","field":"rows[3].text"}}}}')
    assert ("Retry-After" in response.headers) == kind.retryable


def test_the_answer_has_the_time_of_a_retry() -> None:
    assert error_response(BusyError("later", retry_after_s=7.4)).headers["Retry-After"] == "7"
