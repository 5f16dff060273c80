"""The SFTP server: its listener, its sessions and the file system that they see. Uploads end in the spool."""
