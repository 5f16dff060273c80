"""The exporter with leases that are over soon: `python -m support.servers.quick_exporter`. No test lives here."""

from exporter.app import SERVICE
from exporter.exports import claims, progress, worker
from shared.process import run

if __name__ == "__main__":
    vars(progress)["LEASE_S"] = 1.5
    vars(claims)["RENEW_S"] = 0.3
    vars(worker)["CLAIMED_RETRY_S"] = 0.2
    run(SERVICE)
