"""How files arrive. `sftp` is the only way so far; each way ends in the spool."""
