"""Access: accounts, quotas, bans and the host keys of the SFTP server."""
