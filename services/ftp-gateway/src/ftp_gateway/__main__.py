"""The main program of the service."""

from ftp_gateway.app import SERVICE
from shared.service import run

if __name__ == "__main__":
    run(SERVICE)
