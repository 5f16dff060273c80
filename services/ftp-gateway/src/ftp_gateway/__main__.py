"""`python -m ftp_gateway`. Start, signals and stop are in `shared.service`."""

from ftp_gateway.app import SERVICE
from shared.service import run

if __name__ == "__main__":
    run(SERVICE)
