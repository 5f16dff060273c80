"""
Invariants of a mesh under fire, and the findings where one does not hold.

What is looked at: processes, `/livez`, memory, logs, metrics of bugs, and every answer for secrets and for the one
form of an error.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from time import monotonic

import aiohttp
from msgspec import Struct

from shared.contracts.services import SERVICE_NAMES
from support.fuzz.http_requests import Answer, DamagedRequest
from support.servers.mesh import RunningMesh

LIVE_S = 10.0
"""Time limit of `/livez`. A test machine with other work is slow; a held loop would be slower."""
RSS_BYTES = 700 << 20
FINDINGS_EACH = 5
SHOWN = 4000
"""Findings of one kind that are kept, and characters of each."""
FAULTS = re.compile(
    rb'Traceback|"level": ?"(error|critical)"|exception was never|was never awaited|Fatal Python|_crashed'
)


class BrokenInvariant(Struct, frozen=True):
    """Something that does not hold, with what shows it."""

    what: str
    shown: str


class Watch:
    """Collects findings, and counts of everything that was sent, by surface and outcome."""

    def __init__(self, mesh: RunningMesh, secrets: Iterable[str]) -> None:
        self.findings: list[BrokenInvariant] = []
        self.counts: Counter[str] = Counter()
        self.slowest_s: dict[str, float] = dict.fromkeys(SERVICE_NAMES, 0.0)
        self.most_bytes: dict[str, int] = dict.fromkeys(SERVICE_NAMES, 0)
        self._mesh = mesh
        self._secrets = [secret.encode() for secret in secrets]
        self._read: dict[Path, int] = {}
        self._pids = {name: mesh.local.children[name].pid for name in SERVICE_NAMES}

    def write_report(self, path: Path, title: str) -> None:
        """Write the counts and the findings as text."""
        memory = ", ".join(f"{name} {most >> 20} MiB" for name, most in self.most_bytes.items())
        live = ", ".join(f"{name} {slowest_s:.2f} s" for name, slowest_s in self.slowest_s.items())
        lines = [title, f"most memory: {memory}", f"slowest /livez: {live}"]
        lines += [f"{count:8} {name}" for name, count in sorted(self.counts.items())]
        lines += [f"FINDING {found.what}\n    {found.shown}" for found in self.findings]
        path.write_text("\n".join(lines) + "\n")

    def find(self, what: str, shown: object) -> None:
        """Keep a finding."""
        text = repr(shown) if isinstance(shown, bytes) else str(shown)
        self.counts[f"FOUND {what}"] += 1
        if self.counts[f"FOUND {what}"] <= FINDINGS_EACH:
            self.findings.append(BrokenInvariant(what, text[:SHOWN]))

    def check_answer(self, sent: DamagedRequest, answer: Answer) -> None:
        """Look at the answer to a request."""
        form = sent.form
        name = f"{form.method} {form.path.partition('?')[0]} ({form.service})"
        status = answer.status
        self.counts[f"http {form.service} {sent.layer}"] += 1
        self.counts[f"status {form.service} {status}"] += 1
        self.check_secrets(f"answer to {name}", answer.raw, of=sent.data)
        if status == 0:
            if sent.whole:
                self.find(f"no answer to {name}", sent.data[:2000])
            return
        if status in (500, 501, 502) or status > 504:
            self.find(f"{status} for {name}", sent.data[:2000] + b" ==> " + answer.raw[:500])
        if status >= 400 and not _is_error(answer.body, status, form.path):
            self.find(f"{status} without the error body for {name}", sent.data[:2000] + b" ==> " + answer.raw[:500])

    def check_secrets(self, where: str, data: bytes, of: bytes = b"") -> None:
        """Look for secrets. One that the same request has put where no secret belongs may come back."""
        for secret in self._secrets:
            if secret in data:
                self.find(f"secret in {where}", b"%b <== %b" % (data[:1500], of[:1500]))

    async def check_processes(self) -> None:
        """Every process is the one that was started, answers, and has not grown."""
        for name in SERVICE_NAMES:
            child = self._mesh.local.children[name]
            if not child.running or child.pid != self._pids[name]:
                self.find(f"{name} has ended", child.exit_description() if not child.running else "another process")
                continue
            self.most_bytes[name] = max(self.most_bytes[name], most := resident_bytes(child.pid))
            if most > RSS_BYTES:
                self.find(f"memory of {name}", f"{most >> 20} MiB")
            started = monotonic()
            try:
                async with self._mesh.http.get(
                    self._mesh.url(name, "/livez"), timeout=aiohttp.ClientTimeout(LIVE_S)
                ) as response:
                    if response.status != 200:
                        self.find(f"/livez of {name}", response.status)
            except (aiohttp.ClientError, TimeoutError) as error:
                self.find(f"/livez of {name}", repr(error))
            self.slowest_s[name] = max(self.slowest_s[name], monotonic() - started)

    async def check_bugs(self) -> None:
        """No process has counted a bug."""
        for name in SERVICE_NAMES:
            for line in (await self.metrics(name)).splitlines():
                if line.startswith("millrace_bugs_total") and not line.endswith((" 0", " 0.0")):
                    self.find(f"bug counted by {name}", line)

    async def metrics(self, service: str) -> str:
        """The metrics of a service."""
        async with self._mesh.http.get(self._mesh.url(service, "/metrics")) as response:
            return await response.text()

    def check_logs(self) -> None:
        """Read what the processes have logged since the last call."""
        for path in sorted(self._mesh.folder.logs.glob("*.log")):
            data = path.read_bytes()[self._read.get(path, 0) :]
            self._read[path] = self._read.get(path, 0) + len(data)
            self.check_secrets(f"log {path.name}", data)
            if path.stem in SERVICE_NAMES:
                for line in data.split(b'\n{"'):
                    if FAULTS.search(line):
                        action = re.search(rb'"action":"(\w+)"', line)
                        self.find(
                            f"{action[1].decode() if action else 'fault'} in the log of {path.stem}", line[-SHOWN:]
                        )


def resident_bytes(pid: int) -> int:
    """The resident memory of a process."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) << 10 if found else 0


def _is_error(body: bytes, status: int, path: str) -> bool:
    # Events that are all refused are told one by one; readiness says what is not ready.
    try:
        told, _ = json.JSONDecoder().raw_decode(body.decode())
    except ValueError:
        return not body and status in (404, 412, 416)
    if isinstance(told, dict) and ("rejected" in told or (status == 503 and "ready" in told)):
        return True
    return (
        isinstance(told, dict) and isinstance(told.get("error"), dict) and {"code", "message"} <= told["error"].keys()
    )
