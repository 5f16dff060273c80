"""`python -m exporter`. Start, signals and stop are in `shared.service`."""

from exporter.app import SERVICE
from shared.service import run

if __name__ == "__main__":
    run(SERVICE)
