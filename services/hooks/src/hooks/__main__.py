"""`python -m hooks`. Start, signals and stop are in `shared.process` and `shared.lifecycle`."""

from hooks.app import SERVICE
from shared.process import run

if __name__ == "__main__":
    run(SERVICE)
