"""`python -m storage`. Start, signals and stop are in `shared.process` and `shared.lifecycle`."""

from shared.process import run
from storage.app import SERVICE

if __name__ == "__main__":
    run(SERVICE)
