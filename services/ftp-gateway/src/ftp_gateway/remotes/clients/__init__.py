"""Clients of remote servers: SFTP and FTPS."""
