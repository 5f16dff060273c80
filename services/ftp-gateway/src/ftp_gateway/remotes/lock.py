"""
Locks of remotes: one replica pulls a remote, the one that holds the lock of its file in the shared spool.

The kernel, or the server of the file system, releases the lock with the process or the machine, so another replica
needs no time-out. A replica that cannot reach the spool cannot pull either. The file is empty, and stays.

    <app>/remotes/<id>
"""

from pathlib import Path

from ftp_gateway.spool.file_locks import try_lock_path


def lock_remote(spool: Path, app_key: str, remote_id: str) -> int | None:
    """
    Lock a remote until the returned handle is closed. None while another replica holds the lock.

    Args:
        spool: The spool's directory.
    """
    directory = spool / app_key / "remotes"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return try_lock_path(directory / remote_id)
