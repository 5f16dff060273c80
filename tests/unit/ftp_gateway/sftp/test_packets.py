import errno

import asyncssh
import pytest
from asyncssh.constants import FXP_CLOSE, FXP_LINK, FXP_READLINK, FXP_SYMLINK, FXP_WRITE
from asyncssh.sftp import SFTPServerHandler

from ftp_gateway.sftp.packets import PacketHandler, sftp_error
from shared.errors import KINDS


def test_what_is_not_wanted_is_not_in_the_table() -> None:
    table = PacketHandler._packet_handlers
    unwanted = {FXP_SYMLINK, FXP_LINK, FXP_READLINK, b"hardlink@openssh.com", b"copy-data", b"ranges@asyncssh.com"}

    assert {FXP_CLOSE, FXP_WRITE} <= set(table)
    assert set() == unwanted & set(table)
    assert table[FXP_CLOSE] is not SFTPServerHandler._packet_handlers[FXP_CLOSE]


def test_every_kind_of_error_has_a_status() -> None:
    for kind in KINDS.values():
        assert sftp_error(kind("why")).reason == "why"


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (OSError(errno.ENOSPC, "/secret/path"), asyncssh.SFTPNoSpaceOnFilesystem, "the disk is full"),
        (FileNotFoundError(errno.ENOENT, "/secret/path"), asyncssh.SFTPNoSuchFile, "the file is gone"),
        (OSError(errno.EIO, "/secret/path"), asyncssh.SFTPFailure, "internal error"),
        (RuntimeError("/secret/path"), asyncssh.SFTPFailure, "internal error"),
        (asyncssh.SFTPEOFError(), asyncssh.SFTPEOFError, ""),
    ],
)
def test_a_failure_reveals_no_internals(error: Exception, status: type[asyncssh.SFTPError], told: str) -> None:
    found = sftp_error(error)

    assert (status, told) == (type(found), found.reason)
