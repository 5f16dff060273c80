"""`python -m exporter`."""

from exporter.app import SERVICE
from shared.service import run

if __name__ == "__main__":
    run(SERVICE)
