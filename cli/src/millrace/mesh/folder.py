"""
Folder of a local mesh, `.millrace` by default: its lock, its secrets, its addresses now and its ports last time.

    lock           held by the process that runs the mesh
    mesh.json      where the mesh is, while it runs
    ports.json     the ports of the last run, which the next one takes again
    admin-token    a token for every route; keys/ the NKey seeds; secret-keys the keys of configured secrets
    signed         says that what a release before has configured here was signed
    nats/ data/ logs/
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from millrace.machine.ports import HIGHEST
from millrace.machine.secret_files import make_private, read_or_make
from millrace.nats_servers.config import ensure_seeds
from shared.config.secret_keys import generate_key
from shared.config.tokens import SHAPE, new_token
from shared.errors import ConflictError, InvalidError, NotFoundError


class Addresses(Struct, frozen=True, kw_only=True):
    """Addresses of a running mesh. `services` are the URLs of the services by name."""

    nats: str
    services: dict[str, str]
    sftp: str


class MeshFolder:
    """Paths and small files under one root. Nothing is made before it is asked for."""

    def __init__(self, root: Path) -> None:
        # Children run elsewhere or get it as an argument, so it is absolute.
        self.root = root.absolute()
        self.logs = self.root / "logs"
        self.nats = self.root / "nats"
        self.keys = self.root / "keys"
        self.admin_token_file = self.root / "admin-token"
        self.secret_keys_file = self.root / "secret-keys"
        self._addresses = self.root / "mesh.json"
        self._ports = self.root / "ports.json"
        self._signed = self.root / "signed"

    def log(self, name: str) -> Path:
        """The log file of a process of the mesh."""
        return self.logs / f"{name}.log"

    def data(self, service: str) -> Path:
        """A service's own data."""
        return self.root / "data" / service

    def announcement(self, service: str) -> Path:
        """The file to which a service writes its addresses once it is ready."""
        return self.root / "announced" / f"{service}.json"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """
        Lock the folder. The lock ends with this process, however it ends.

        Raises:
            ConflictError: Another process has it; says which, and where its mesh is.
            InvalidError: There can be no such folder.
        """
        make_private(self.root)
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConflictError(f"a mesh runs on {self.root} already ({self._holder(descriptor)})") from None
            # A killed run leaves its addresses behind, at which nothing listens.
            self._addresses.unlink(missing_ok=True)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def _holder(self, descriptor: int) -> str:
        holder = f"process {os.pread(descriptor, 32, 0).decode().strip() or 'unknown'}"
        with contextlib.suppress(NotFoundError, InvalidError):
            return f"{holder}; storage is at {self.addresses().services['storage']}"
        return f"{holder}, which is starting"

    def seeds(self) -> dict[str, str]:
        """The NKey seed of every user, made once."""
        return ensure_seeds(self.keys)

    def secret_keys(self) -> str:
        """
        The Fernet keys of configured secrets, made once; an operator adds new ones in front.

        Raises:
            InvalidError: The file is lost, and what its keys encrypted is still there; or it has no keys.
        """
        if self.nats.exists() and not self.secret_keys_file.exists():
            message = (
                f"it is lost, and the configuration in {self.nats} is encrypted and signed with its keys; restore it"
            )
            raise InvalidError(f"{message}, or start on an empty folder", field=str(self.secret_keys_file))
        return read_or_make(self.secret_keys_file, generate_key)

    def admin_token(self) -> str:
        """The operator's token, made once. Raises `InvalidError` where the file has none."""
        return check_token(read_or_make(self.admin_token_file, new_token), self.admin_token_file)

    def ports(self) -> dict[str, int]:
        """The ports of the last run by name; none where there was no run."""
        try:
            return msgspec.json.decode(self._ports.read_bytes(), type=dict[str, Annotated[int, Meta(ge=1, le=HIGHEST)]])
        except (OSError, msgspec.DecodeError):
            return {}

    def remember_ports(self, ports: dict[str, int]) -> None:
        """Store the ports for the next run."""
        _replace(self._ports, msgspec.json.encode(ports))

    def is_configuration_signed(self) -> bool:
        """Return whether the configuration that was here without signatures was signed."""
        return self._signed.exists()

    def remember_signed_configuration(self) -> None:
        """From now on an entry without a signature is nobody's, and no start signs one."""
        self._signed.touch()

    def addresses(self) -> Addresses:
        """
        Addresses of the mesh of this folder.

        Raises:
            NotFoundError: None runs.
        """
        try:
            if self._is_used():
                return msgspec.json.decode(self._addresses.read_bytes(), type=Addresses)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise InvalidError(f"cannot be read: {error.strerror}", field=str(error.filename)) from None
        except msgspec.DecodeError as error:
            raise InvalidError(f"cannot be read: {error}", field=str(self._addresses)) from None
        raise NotFoundError(f"no mesh is ready on {self.root}; `millrace up` starts one")

    def _is_used(self) -> bool:
        with (self.root / "lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    @contextlib.contextmanager
    def announced(self, addresses: Addresses) -> Iterator[None]:
        """Publish the addresses to other commands, for the length of the block."""
        _replace(self._addresses, msgspec.json.encode(addresses))
        try:
            yield
        finally:
            self._addresses.unlink(missing_ok=True)


def check_token(text: str, file: Path) -> str:
    """Return the text of a token's file. Raises `InvalidError`, which names the file, where it is no token."""
    if not SHAPE.fullmatch(text):
        raise InvalidError("expected a token, which is mr_ and 43 characters", field=str(file))
    return text


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, since another process may read it meanwhile."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(path)
