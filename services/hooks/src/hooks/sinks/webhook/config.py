"""
Send records to an address of the customer's, signed by Standard Webhooks (standardwebhooks.com, 1.0.0).

Configuration: the hook's own `url` and `secret`, nothing else. The receiver checks `webhook-signature` over the id, the
time and the body as they came. It refuses messages older than some minutes, and drops an id that it had before.
Implementation: `sink.py` posts, `signing.py` signs, `checks.py` is Test Connection. Retries nothing:
`hooks.delivery.target_queue` does.
Considerations: the customer chooses the address, so it may not lead into our own network. It has HTTPS, no redirects,
and a public address at connect time, unless the operator allows others.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import ClassVar

from msgspec import Struct

from hooks.delivery.model import SinkLimits
from hooks.matching.hook import Hook
from hooks.sinks.port import Advise
from hooks.sinks.webhook.checks import DEADLINE_S, webhook_checks
from hooks.sinks.webhook.client import WebhookClient
from hooks.sinks.webhook.signing import signing_key
from hooks.sinks.webhook.sink import LIMITS, REQUEST_S, WebhookSink
from shared.config.secret import Secret
from shared.contracts.connection_report import ConnectionReport, run_checks
from shared.outgoing.door import Outgoing
from shared.outgoing.urls import check_url
from shared.runtime.settings import Settings


class WebhookConfig(Struct, frozen=True, kw_only=True):
    """The address of one hook's records, and the secret that signs them: the key in Base64, after `whsec_` or alone."""

    hook_type: ClassVar[str] = "WEBHOOK"
    title: ClassVar[str] = "webhook"
    connector: ClassVar[str | None] = None
    hook_fields: ClassVar[tuple[str, ...]] = ("url", "secret")
    limits: ClassVar[SinkLimits] = LIMITS

    url: str
    secret: Secret
    content_type: str = "application/json"

    @classmethod
    @asynccontextmanager
    async def open_shared(
        cls, settings: Settings, outgoing: Outgoing, clock: Callable[[], datetime]
    ) -> AsyncIterator[WebhookClient]:
        """The connections of the process."""
        yield WebhookClient(outgoing, clock)

    @classmethod
    def of_hook(cls, hook: Hook) -> "WebhookConfig":
        """The configuration that a hook holds."""
        content_type = "application/x-ndjson" if hook.batch.format == "ndjson" else "application/json"
        return cls(url=hook.url, secret=hook.secret, content_type=content_type)

    def check(self, *, allow_private: bool, app_key: str) -> "WebhookConfig":
        """
        See `hooks.sinks.port.SinkFactory`.

        Raises:
            InvalidError: The address cannot be right, or is not reached from the internet although it has to be; or the
                secret is none. Names the field.
        """
        check_url(self.url, "url", allow_private=allow_private, form="https://host[:port][/path][?query]")
        signing_key(self.secret)
        return self

    def open(self, shared: WebhookClient, name: str, advise: Advise, *, request_s: float = REQUEST_S) -> WebhookSink:
        """
        The sink of one hook; see `hooks.sinks.port.SinkFactory`.

        Args:
            request_s: The time limit of one request.
        """
        return WebhookSink(shared, self.url, self.secret, self.content_type, request_s)

    async def test(self, shared: WebhookClient, stream_name: str | None, *, test_record: bool) -> ConnectionReport:
        """See `hooks.sinks.port.SinkFactory`. Posts one marked message, as JSON."""
        sink = WebhookSink(shared, self.url, self.secret)
        checks = webhook_checks(self.url, sink, shared.outgoing)
        return await run_checks(checks, deadline_s=DEADLINE_S)
