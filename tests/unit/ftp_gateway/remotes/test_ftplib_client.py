"""The check of ftplib's undocumented names at the start of the service."""

import ftplib

import pytest

from ftp_gateway.remotes.clients.ftplib_client import check_internals
from shared.errors import UnavailableError


def test_the_ftplib_of_this_python_has_what_is_used() -> None:
    check_internals()


def test_a_name_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(ftplib.FTP, "getmultiline")

    with pytest.raises(UnavailableError, match=r"ftplib of Python 3\.\d+\.\d+\S* has moved .*: getmultiline\."):
        check_internals()


def test_a_name_that_is_no_longer_used_is_named_with_the_method_that_has_to_use_it() -> None:
    class MovedFtp(ftplib.FTP_TLS):
        def getresp(self) -> str:
            return self.getline()

    with pytest.raises(UnavailableError, match=r"getmultiline in getresp\."):
        check_internals(MovedFtp)
