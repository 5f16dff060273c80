"""Takes push and profile files by SFTP and turns their rows into messages."""

SERVICE_NAME = "ftp-gateway"
