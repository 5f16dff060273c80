"""
moto's server, one request at a time: the main program of the process that `millrace.demo.moto` starts.

moto runs each request in a thread of its own, and its Kinesis "is not safe for concurrency" (moto/kinesis/models.py,
`Shard.put_record`). Two PutRecords at once may assign one sequence number to two records, and one of them is lost. Real
Kinesis loses none, so the requests queue here.
"""

import sys
import threading
from collections.abc import Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple


class OneAtATime:
    """WSGI application around another, which runs one request at a time."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self._turn = threading.Lock()

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        with self._turn:
            answer: Iterable[bytes] = self._application(environ, start_response)
            return answer


def main() -> None:
    """Serve on the port of loopback that is given, or on a free one, which is printed, until killed."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    application = OneAtATime(DomainDispatcherApplication(create_backend_app))
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    run_simple("127.0.0.1", port, application, threaded=True, request_handler=MotoRequestHandler)


if __name__ == "__main__":
    main()
