"""`python -m hooks`. Start, signals and stop are in `shared.service`."""

from hooks.app import SERVICE
from shared.service import run

if __name__ == "__main__":
    run(SERVICE)
