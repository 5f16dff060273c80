"""
One remote is pulled by one replica: the one that has the lock of the remote's file in the spool, which all share.

The kernel, or the server of the file system, lets the lock go with the process or the machine, so no time has to pass
before another replica may go on. Who cannot reach the spool any more cannot pull either. The file is empty, and stays.

    <app>/remotes/<id>
"""

from pathlib import Path

from ftp_gateway.spool.file_locks import try_lock_path


def lock_remote(spool: Path, app_key: str, remote_id: str) -> int | None:
    """
    The right to pull from a remote, until the handle is closed; None while another has it.

    Args:
        spool: The spool's directory.
    """
    directory = spool / app_key / "remotes"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return try_lock_path(directory / remote_id)
