"""`python -m storage`. Start, signals and stop are in `shared.service`."""

from shared.service import run
from storage.app import SERVICE

if __name__ == "__main__":
    run(SERVICE)
