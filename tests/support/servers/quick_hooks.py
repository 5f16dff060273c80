"""The hooks service with leases that are over soon: `python -m support.servers.quick_hooks`. No test lives here."""

from hooks import app
from hooks.assignment.plan import LeaseTiming
from shared.process import run

if __name__ == "__main__":
    app.TIMING = LeaseTiming(renew_s=0.3, stop_s=1.2, expire_s=2.0, drain_s=1.0)
    run(app.SERVICE)
