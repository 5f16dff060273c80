"""A worker process that says each message again: `python -m support.echo_worker`. No test lives here."""

import sys

from shared.runtime.framing import LENGTH_BYTES, read_frame


def main() -> None:
    """Answer until the requests end; "end" ends the process at once, and "silence" is not answered."""
    while (body := read_frame(sys.stdin.buffer)) is not None:
        if b"end" in body:
            return
        if b"silence" not in body:
            sys.stdout.buffer.write(len(body).to_bytes(LENGTH_BYTES, "big") + body)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
