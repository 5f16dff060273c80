"""import-linter refuses each import that a contract of pyproject.toml forbids; run on a copy of the sources."""

import re
from collections.abc import Mapping
from pathlib import Path

from support.checkout_copy import CheckoutCopy

FORBIDDEN = {
    # A lower package of hooks imports a higher one.
    "hooks.delivery.concurrency_limit": "from hooks.assignment.leases import LeaseKeeper",
    # Two packages of ftp_gateway import each other.
    "ftp_gateway.spool.upload_info": "from ftp_gateway.processing.scheduler import FileScheduler",
    # Two modules of one package import each other; no layers stand in their way.
    "millrace.mesh.folder": "from millrace.mesh.local_mesh import LocalMesh",
    # A vendor's library is imported elsewhere than in its package.
    "exporter.destinations.retention": "import obstore",
}


def broken_contracts(report: str) -> Mapping[str, str]:
    """Names of the broken contracts, each with its text in the report."""
    _, _, details = report.partition("Broken contracts\n")
    parts = re.split(r"^(.+)\n-{3,}\n", details.partition("\n\n")[2], flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_import_rules_refuse_a_forbidden_import_and_a_circle(tmp_path: Path) -> None:
    copy = CheckoutCopy(tmp_path / "checkout")
    for module, line in FORBIDDEN.items():
        path = copy.path(module)
        path.write_text(f"{path.read_text()}\n{line}\n")

    code, report = copy.lint_imports()

    broken = broken_contracts(report)
    assert 1 == code, report
    assert "hooks.delivery.concurrency_limit -> hooks.assignment.leases" in broken["inside hooks"]
    assert "ftp_gateway.spool.upload_info -> ftp_gateway.processing.scheduler" in broken["inside ftp_gateway"]
    assert "No cycles are allowed in ftp_gateway." in broken["no circles"]
    assert "No cycles are allowed in millrace.mesh." in broken["no circles"]
    assert "exporter.destinations.retention -> obstore" in broken["obstore only in shared.objects"]


def test_import_rules_keep_the_sources_as_they_are(tmp_path: Path) -> None:
    code, report = CheckoutCopy(tmp_path / "checkout").lint_imports()

    assert 0 == code, report
    assert re.search(r"Contracts: \d+ kept, 0 broken\.", report)
