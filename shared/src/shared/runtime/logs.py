"""
Structured logs: set-up, redaction of secrets, and the stable `action` key of every line. Nothing here is
specific to a service.

A service logs `log.info("hook_saved", hook_id=…)`. The first argument is the action, a stable key that tools may count
on; a sentence for people goes into `message`. Lines that libraries log through the standard library take the same way:
their action is `library_log`, their `message` the library's own sentence, and `logger` its name.
"""

import logging
import re
import sys
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Set
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from functools import lru_cache
from typing import Any, Literal, TextIO
from urllib.parse import quote

import msgspec
import structlog
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

MASK = "***"

SECRET_NAMES = (
    "secret",
    "password",
    "passwd",
    "passphrase",
    "token",
    "api_key",
    "apikey",
    "access_key",
    "account_key",
    "private_key",
    "fernet",
    "seed",
    "authorization",
    "credential",
    "cookie",
    "signature",
)
"""A key whose name holds one of these, whatever its case and whether it has `-` or `_`, is masked whatever it holds."""

SECRET_TEXT = (
    (re.compile(r"(?i)\b(bearer|basic)(\s+)[A-Za-z0-9._~+/=-]{16,}"), rf"\1\2{MASK}"),
    (re.compile(r"(://[^/\s:@]*:)[^/\s@]+@"), rf"\1{MASK}@"),
)
"""Secrets that their surroundings reveal: an Authorization header, and the password in a URL."""

MIN_LEVELS = {
    # botocore prints whole answers of STS, temporary keys included, at debug.
    "botocore": logging.WARNING,
    "aiobotocore": logging.WARNING,
    # A line per connection, request and key exchange: our own lines and counters say that already.
    "asyncssh": logging.WARNING,
    "aiohttp.access": logging.WARNING,
}
"""The lowest level of a library's lines, whatever the level of the process."""

MIN_SECRET_CHARS = 6
"""Shortest secret that is masked by value: masking every `a` would leave nothing to read."""


SECRET_LINES = 64
"""Lines of a secret that are masked by themselves: a private key of 4,096 bits has some fifty."""
RECENT_FORMS = 1_000
"""Spellings of secrets of forms that are masked; the oldest go first. A refused form leaves nothing for good."""

PLAIN_KEYS = frozenset({"timestamp", "level", "service", "action", "logger", "app_key", "state"})
"""Keys whose values are names of ours. No value is masked there: a tenant whose secret is `completed` hides no run."""


class Redactor:
    """
    Masks secrets in a log line: by the name of the key, by what surrounds them, and by value once registered.

    Code that decrypts a secret registers it with `add`. From then on it is masked everywhere, in tracebacks too.
    """

    def __init__(self) -> None:
        self._values: tuple[str, ...] = ()
        self._recent: deque[str] = deque(maxlen=RECENT_FORMS)

    def add(self, value: str) -> None:
        """Mask this value from now on. One shorter than six characters is passed over."""
        new = _spellings(value)
        if not new.issubset(self._values):
            # The longest first: a secret may begin with another one.
            self._values = tuple(sorted({*self._values, *new}, key=len, reverse=True))

    def add_form(self, value: str) -> None:
        """Mask a value of a form, which may be refused, until a thousand others have come."""
        self._recent.extend(sorted(_spellings(value).difference(self._values), key=len))

    def text(self, text: str) -> str:
        """The text without secrets."""
        if not text.isascii():
            # A file name may hold bytes that are no UTF-8, as lone surrogates, and a log line must not fail on them.
            text = text.encode(errors="backslashreplace").decode()
        for value in (*self._values, *reversed(self._recent)):
            if value in text:
                text = text.replace(value, MASK)
        for pattern, masked in SECRET_TEXT:
            text = pattern.sub(masked, text)
        return text

    def value(self, value: Any) -> Any:
        """A value of a log line without secrets, as plain data."""
        if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 63):
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return self.text(bytes(value).decode(errors="replace"))
        if isinstance(value, Mapping):
            return self.mapping(value)
        if isinstance(value, list | tuple | Set):
            return [self.value(item) for item in value]
        if isinstance(value, msgspec.Struct):
            return self.mapping(msgspec.structs.asdict(value))
        if is_dataclass(value) and not isinstance(value, type):
            return self.mapping({field.name: getattr(value, field.name) for field in dataclass_fields(value)})
        return self.text(str(value))

    def mapping(self, values: Mapping[Any, Any]) -> dict[str, Any]:
        """A mapping without secrets: a key with a secret's name is masked whatever it holds."""
        redacted = {}
        for key, value in values.items():
            name = self.text(str(key))
            redacted[name] = self._of(name, value)
        return redacted

    def _of(self, name: str, value: Any) -> Any:
        return MASK if value is not None and names_secret(name) else self.value(value)

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        """Redact an event, as a structlog processor."""
        return {
            key: value if key in PLAIN_KEYS and isinstance(value, str) else self._of(key, value)
            for key, value in event.items()
        }


def _spellings(value: str) -> set[str]:
    """The spellings in which a secret may stand in a line: whole and by lines, as it is, in a URL and in a `repr`."""
    parts = [value, *[line for line in value.splitlines() if len(line) >= 16][:SECRET_LINES]]
    forms = {form for part in parts for form in (part, quote(part, safe=""), repr(part)[1:-1])}
    return {form for form in forms if len(form.strip()) >= MIN_SECRET_CHARS}


@lru_cache(1024)
def names_secret(key: str) -> bool:
    """Return whether what stands under a key is a secret, by its name."""
    name = key.lower().replace("-", "_")
    return any(secret in name for secret in SECRET_NAMES)


redactor = Redactor()
"""The redactor of this process, which has one set-up of logs."""


def configure(
    *,
    service: str,
    level: str,
    format: Literal["json", "console"],  # noqa: A002 (every other logger calls it so)
    stream: TextIO | None = None,
) -> None:
    """
    Send every line of this process, ours and the libraries', to the stream (standard error). May be called again.

    Args:
        service: Stands in every line.
        level: `debug`, `info`, `warning` or `error`.
    """
    stream = sys.stderr if stream is None else stream
    number = logging.getLevelNamesMapping()[level.upper()]
    lines: list[Processor] = [
        _named(service),
        structlog.processors.ExceptionRenderer(_plain_traceback),
        redactor,
        _renderer(format),
    ]
    head: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*head, *lines],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
    handler = _Handler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*head, _library],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *lines],
        )
    )
    logging.root.handlers[:] = [*(h for h in logging.root.handlers if not isinstance(h, _Handler)), handler]
    logging.root.setLevel(number)
    for name, min_level in MIN_LEVELS.items():
        logging.getLogger(name).setLevel(max(number, min_level))
    logging.captureWarnings(True)


class _Handler(logging.StreamHandler[TextIO]):
    """Handler type by which a second `configure` finds and replaces the first."""


def _named(service: str) -> Processor:
    """The keys that every line has, first and in one order."""

    def name(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        action = event.pop("event", None)
        first = {"timestamp": event.pop("timestamp"), "level": event.pop("level"), "service": service, "action": action}
        if "message" in event:
            first["message"] = event.pop("message")
        return {**first, **event}

    return name


def _library(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    event["logger"] = event["_record"].name
    event["message"] = event["event"]
    event["event"] = "library_log"
    return event


def _plain_traceback(exc_info: ExcInfo) -> str:
    # Never with the values of local variables, which is what the prettier formatters add.
    return "".join(traceback.format_exception(*exc_info)).rstrip()


def _renderer(form: Literal["json", "console"]) -> Callable[..., str]:
    if form == "json":
        return lambda _, __, event: msgspec.json.encode(event).decode()
    console = structlog.dev.ConsoleRenderer(
        event_key="action", colors=False, sort_keys=False, exception_formatter=structlog.dev.plain_traceback
    )
    return lambda logger, name, event: str(console(logger, name, event))
