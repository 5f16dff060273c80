"""
Entries of `CONFIG` as signed bytes: the one place that reads and writes them.

The right to publish on a subject of NATS is no proof of who wrote an entry: a message may reach `$KV.CONFIG.>` as a
reply. So each entry carries, in a header, a signature by the secret keys over its key and its value
(`shared.config.secret_keys`). What a value means is `shared.config.registry`'s.
"""

from shared.config.secret_keys import SecretKeys, UnsignedError
from shared.contracts import streams
from shared.messaging.bus import Bus
from shared.messaging.kv import KeyValue, KeyValueStore
from shared.messaging.message import Message

SIGNATURE = "Millrace-Signature"


class SignedStore:
    """The bucket, with the keys that sign. Every method raises `UnavailableError` when NATS does not answer."""

    def __init__(self, bus: Bus, keys: SecretKeys) -> None:
        self._store = KeyValueStore(bus, streams.CONFIG)
        self._keys = keys

    def verify(self, stored: KeyValue) -> KeyValue:
        """Return the entry. Raises `UnsignedError` where the secret keys have not signed this value for this key."""
        try:
            self._keys.verify(stored.key, stored.data, stored.headers.get(SIGNATURE))
        except UnsignedError as error:
            message = f"{stored.key} is not used: {error.message}; `millrace sign` shows such entries"
            raise UnsignedError(message, reason=error.message) from None
        return stored

    def is_signed_with_first(self, stored: KeyValue) -> bool:
        """Return whether the newest of the keys has signed the entry, which is verified."""
        return self._keys.is_signed_with_first(stored.headers.get(SIGNATURE, ""))

    def from_message(self, message: Message) -> KeyValue:
        """A message of the bucket's stream as an entry, not verified."""
        return self._store.stored(message)

    async def get(self, key: str) -> KeyValue | None:
        """The entry, not verified, or None."""
        return await self._store.get(key)

    async def scan(self, keys: str = ">") -> list[KeyValue]:
        """Every entry whose key matches the filter, not verified."""
        return await self._store.scan(keys)

    async def put(self, key: str, data: bytes, *, expect_revision: int | None = None) -> KeyValue:
        """
        Sign and write.

        Args:
            expect_revision: The revision that was read; 0 when there must be nothing.

        Raises:
            ConflictError: The key has changed since.
        """
        self._keys.refresh()
        headers = {SIGNATURE: self._keys.sign(key, data)}
        revision = await self._store.put(key, data, expect_revision=expect_revision, headers=headers)
        return KeyValue(key, data, revision, headers)

    async def delete(self, key: str, *, expect_revision: int | None = None) -> None:
        """Erase an entry."""
        await self._store.delete(key, expect_revision=expect_revision)
