"""
Rounds of damaged requests, messages and files against a mesh, with a neighbour whose events have to go through.

Three apps: `mess` sends everything that is damaged, `shop` sends good events and rows with bad ones beside them, and
`rival` is the neighbour. Each event of the last two arrives exactly once, or its dead letter says why not.
"""

import asyncio
import json
import random
from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Self

from hooks.events.decoding import read_message
from millrace.mesh.access import access_of_folder, open_registry
from shared.config.tokens import TOKENS, Token, new_token, token_hash
from shared.contracts.consumers import PROFILES_READER
from shared.contracts.grants import GRANTS
from shared.contracts.messages import DeadLetter, decode
from shared.contracts.streams import CONFIG, DLQ
from shared.contracts.subjects import dead_letter, partition_of, partition_of_events
from shared.messaging.bus import Bus
from shared.messaging.consumers import open_scan
from support.fuzz import files, http_requests, nats_messages
from support.fuzz.damage import Damage
from support.fuzz.http_requests import event
from support.fuzz.invariants import Watch
from support.servers.mesh import RunningMesh
from support.servers.webhooks import SECRET, Receiver

ARRIVED_S = 90.0
"""Time limit of an event from its acknowledgement to its receiver, on a machine with other work."""
AT_ONCE = 6
REQUESTS, MESSAGES, EVENTS, FILES = 24, 24, 8, 2
"""Damaged things in a round."""
CORPUS_MESSAGES = 200
SILENT_S = 2.0
SECRETS = {
    name: f"wJalr-{name}-XUtnFEMI-K7MDENG-{name}" for name in ("amazon", "kinesis", "export", "remote", "sftp")
} | {
    "azure": "d0phbHItYXp1cmUtWFV0bkZFTUktSzdNREVORw==",
    "webhook": "whsec_d0phbHItd2ViaG9vay1YVXRuRkVNSS1LN01ERU5HLXdlYmhvb2s=",
}


class Campaign:
    """An async context manager around a mesh: `await campaign.round(n)`, then `await campaign.settle()`."""

    def __init__(self, mesh: RunningMesh, seed: int) -> None:
        self.watch: Watch
        self._mesh = mesh
        self._seed = seed
        self._stack = AsyncExitStack()
        self._tokens: dict[str, str] = {}
        self._buses: dict[str, Bus] = {}
        self._known: dict[str, list[str]] = {}
        self._corpus: dict[str, list[bytes]] = {}
        self._shop, self._rival, self._mess = Receiver(), Receiver(), Receiver()
        self._arrived: Counter[str] = Counter()
        self._sources: set[str] = set()
        self._awaited: dict[str, float] = {}
        """Ids of good events by the time from which they are late."""
        self._published: list[tuple[str, int, bytes]] = []
        """Messages of `EVENTS` for the accounts: subject, sequence, body."""
        self._letters_from = 1
        self._letters: set[str] = set()
        self._number = 0

    async def __aenter__(self) -> Self:
        try:
            await self._prepare()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _prepare(self) -> None:
        mesh, enter = self._mesh, self._stack.enter_async_context
        for receiver in (self._shop, self._rival, self._mess):
            await enter(receiver)
        async with open_registry(access_of_folder(mesh.folder, mesh.folder.addresses().nats)) as registry:
            for app in ("mess", "torn", "shop", "rival"):
                self._tokens[app] = token = new_token()
                issued = Token(scopes=(f"app:{app}",), created_at=datetime.now(UTC))
                await registry.put(TOKENS, token_hash(token), "", issued)
        self._tokens["admin"] = mesh.folder.admin_token()
        for user in GRANTS:
            if user in nats_messages.USERS:
                self._buses[user] = await enter(mesh.bus(user))
        hook = {"name": "w", "type": "WEBHOOK", "secret": SECRET, "trigger_type": "EVENT", "event_code": "good"}
        await mesh.call("PUT", "hooks", "/v1/apps/shop/hooks/w", json=hook | {"url": self._shop.url, "event_code": "*"})
        await mesh.call("PUT", "hooks", "/v1/apps/rival/hooks/w", json=hook | {"url": self._rival.url})
        await mesh.call("PUT", "ftp-gateway", "/v1/apps/shop", json={"settle_s": 0})
        await mesh.call("PUT", "ftp-gateway", "/v1/apps/shop/ftp-users/nightly", json={"password": SECRETS["sftp"]})
        self._torn = http_requests.forms("torn", hook_url=self._mess.url, secrets=SECRETS)
        self._forms = http_requests.forms("mess", hook_url=self._mess.url, secrets=SECRETS)
        seeds = mesh.folder.seeds().values()
        self.watch = Watch(mesh, (*SECRETS.values(), SECRET, *self._tokens.values(), *seeds, mesh.folder.secret_keys()))
        await self._send_whole()
        host, port = mesh.sftp
        self._files = await enter(files.open_customer(host, port, "shop.nightly", SECRETS["sftp"]))
        await self._read_corpus()

    async def _send_whole(self) -> None:
        """Send every request as it is, so that there is something to show, to damage and to delete."""
        found: list[http_requests.Example] = []
        for form in (*self._forms, *self._torn):
            token = self._tokens["mess" if "/mess" in form.path else "torn" if "/torn" in form.path else "admin"]
            answer = await self._send(http_requests.whole(form, token), "127.0.0.2")
            if answer is not None and form.service == "storage":
                found += http_requests.follow(form, answer)
        self._forms = [form for form in self._forms if not form.followed] + found

    async def round(self, number: int) -> None:
        """Send a share of everything, and look at everything that can be looked at while it goes on."""
        at_random = random.Random(f"{self._seed}:{number}")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._requests(random.Random(at_random.random())))
            tasks.create_task(self._messages(random.Random(at_random.random())))
            tasks.create_task(self._events(random.Random(at_random.random())))
            tasks.create_task(self._uploads(number, random.Random(at_random.random())))
            tasks.create_task(self._neighbour(number))
        self._mess.answers.extend((at_random.choice((200, 400, 413, 429, 500, 302)), {}) for _ in range(20))
        await self.watch.check_processes()
        self.watch.check_logs()
        self._take_arrived()
        for id in [id for id, late in self._awaited.items() if self._arrived[id]]:
            del self._awaited[id]
        now = monotonic()
        for id in [id for id, late in self._awaited.items() if late < now]:
            del self._awaited[id]
            self.watch.find("event did not arrive", id)
        if number % 20 == 19:
            await self.settle()

    async def settle(self) -> None:
        """Wait until everything that was published has had its effect or has its dead letter, and find what has not."""
        await self.watch.check_bugs()
        expected: set[str] = set()
        refused: set[str] = set()
        for subject, sequence, data in self._published:
            partition = partition_of_events(subject)
            assert partition is not None
            decoded = await read_message(data, "shop", partition)
            place = f"EVENTS:{sequence}"
            refused |= {place if one.index is None else f"{place}:{one.index}" for one in decoded.refused}
            # The other types of events fire no hook.
            expected |= {f"{place}:{index}" for index, found in decoded.events if found.type == "event"}
        self._published.clear()
        until = monotonic() + ARRIVED_S
        while True:
            self._take_arrived()
            await self._read_letters()
            missing = (expected - self._sources - self._letters) | (refused - self._letters)
            missing |= {id for id in self._awaited if not self._arrived[id]}
            waiting = await self._profiles_waiting()
            if not (missing or waiting) or monotonic() > until:
                break
            await asyncio.sleep(0.2)
        if missing:
            self.watch.find("neither delivered nor a dead letter", sorted(missing)[:20])
        if waiting:
            self.watch.find("profile updates wait", waiting)
        self.watch.counts["events delivered"] += len(expected & self._sources)
        self.watch.counts["events dead-lettered"] += len(refused) + len(expected & self._letters)
        self._awaited.clear()
        twice = {id: times for id, times in self._arrived.items() if times > 1}
        if twice:
            self.watch.find("event delivered more than once", twice)
        self._arrived.clear()
        self._sources.clear()
        self._letters.clear()
        await self._send_whole()
        await self._read_corpus()

    async def _requests(self, at_random: random.Random) -> None:
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(sent: http_requests.DamagedRequest, source: str) -> None:
            async with slots:
                await self._send(sent, source)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(REQUESTS):
                form = at_random.choice(self._torn if at_random.random() < 0.1 else self._forms)
                sent = http_requests.damaged(form, self._token_of(form, at_random), at_random)
                tasks.create_task(one(sent, f"127.0.0.{at_random.randint(2, 250)}"))

    async def _send(self, sent: http_requests.DamagedRequest, source: str) -> http_requests.Answer | None:
        url = self._mesh.url(sent.form.service, "")
        try:
            answer = await http_requests.send(url, sent, source)
        except OSError as error:
            self.watch.find(f"no connection to {sent.form.service}", repr(error))
            return None
        self.watch.check_answer(sent, answer)
        return answer

    def _token_of(self, form: http_requests.Example, at_random: random.Random) -> str:
        if at_random.random() < 0.04:
            return at_random.choice(("", "x", self._tokens["shop"], "mlr_" + "x" * 40))
        return self._tokens["mess" if "/mess" in form.path else "torn" if "/torn" in form.path else "admin"]

    async def _messages(self, at_random: random.Random) -> None:
        waiting = []
        for _ in range(MESSAGES):
            user = at_random.choice(nats_messages.USERS)
            subjects = nats_messages.filters_of(user)
            subject = nats_messages.subject_in(at_random.choice(subjects), at_random)
            if (kept := self._known.get(user)) and at_random.random() < 0.4:
                subject = at_random.choice(kept)
            if subject.startswith(CONFIG.prefix):
                subject = subject.replace(".mess", ".torn")
            data = nats_messages.payload(subject, self._corpus.get(user, []), at_random)
            headers = at_random.choice(nats_messages.HEADERS)
            waiting.append(nats_messages.publish(self._buses[user], user, subject, data, headers))
        for told in await asyncio.gather(*waiting):
            family = ".".join(told.subject.split(".")[:2])
            self.watch.counts[f"nats {told.user} {family} {told.outcome}"] += 1
            self.watch.check_secrets(f"answer by NATS to {told.user} on {told.subject}", told.reply, told.data)
            if told.outcome == "internal" or told.outcome in ("TimeoutError",):
                self.watch.find(f"{told.outcome} for {told.user} on {told.subject}", told.data[:3000])

    async def _events(self, at_random: random.Random) -> None:
        for _ in range(EVENTS):
            self._number += 1
            user = f"user-{at_random.randrange(200)}"
            made = nats_messages.event_message("shop", partition_of(user), user, self._number, at_random)
            data = made.data
            kind = at_random.randrange(4)
            if kind == 0:
                await self._post_events(data, made.good)
                continue
            if kind == 1:
                data = Damage(at_random).of_bytes(data)
            told = await nats_messages.publish(self._buses["publisher"], "publisher", made.subject, data, {})
            self.watch.counts[f"events by NATS {told.outcome}"] += 1
            if told.outcome != "stored":
                self.watch.find("event not stored", f"{told.outcome} {told.reply!r}")
                continue
            self._published.append((made.subject, json.loads(told.reply)["seq"], data))
            if kind != 1:
                self._await(made.good)

    async def _post_events(self, data: bytes, good: tuple[str, ...]) -> None:
        headers = {"Authorization": f"Bearer {self._tokens['shop']}", "Content-Type": "application/json"}
        async with self._mesh.http.post(
            self._mesh.url("hooks", "/v1/apps/shop/events"), data=data, headers=headers
        ) as response:
            told = await response.json()
        self.watch.counts[f"events by HTTP {response.status}"] += 1
        if "accepted" in told:
            # A bad item costs itself: the good ones beside it are taken.
            self._await(good)
            if told["accepted"] < len(good):
                self.watch.find("good events refused", data[:2000] + json.dumps(told).encode())
        else:
            self.watch.find("good events refused beside bad ones", data[:2000] + json.dumps(told).encode())

    async def _uploads(self, number: int, at_random: random.Random) -> None:
        for place in range(FILES):
            outcome = await self._files.upload(f"{number}-{place}", at_random)
            self.watch.counts[f"files {outcome.partition(':')[0]}"] += 1
            if outcome.startswith("finding"):
                self.watch.find("file", outcome)
        host, port = self._mesh.sftp
        self.watch.counts["ssh"] += 1
        await files.bother_ssh(host, port, f"127.0.0.{at_random.randint(2, 250)}", at_random)

    async def _neighbour(self, number: int) -> None:
        ids = [f"r{number}-{place}" for place in range(3)]
        sent = [event(id=id, code="good", user_id=f"neighbour-{number % 7}") for id in ids]
        for one in sent:
            del one["ext_id"]
        headers = {"Authorization": f"Bearer {self._tokens['rival']}"}
        started = monotonic()
        url = self._mesh.url("hooks", "/v1/apps/rival/events")
        async with self._mesh.http.post(url, json=sent, headers=headers) as response:
            told = await response.json()
        if response.status != 202 or told["accepted"] != 3:
            self.watch.find("neighbour refused", told)
            return
        self._await(ids)
        self.watch.counts["neighbour's events"] += 3
        while not all(self._arrived[id] for id in ids) and monotonic() < started + ARRIVED_S:
            await asyncio.sleep(0.05)
            self._take_arrived()
        took_ms = int((monotonic() - started) * 1000)
        self.watch.counts["neighbour's slowest, ms"] = max(self.watch.counts["neighbour's slowest, ms"], took_ms)

    def _await(self, ids: Any) -> None:
        self._awaited |= dict.fromkeys(ids, monotonic() + ARRIVED_S)

    def _take_arrived(self) -> None:
        for receiver in (self._shop, self._rival):
            while receiver.received:
                value = receiver.received.pop().value
                # The id alone may be damaged, and the same for two.
                self._sources.add(value["source"])
                if value["event"]["code"] == "good":
                    self._arrived[value["id"]] += 1
        self._mess.received.clear()

    async def _read_letters(self) -> None:
        bus = self._buses["hooks"]
        subject = dead_letter("hooks", "shop", "*", "*")
        async with open_scan(bus, DLQ, subject=subject, start_sequence=self._letters_from) as scan:
            left = scan.pending_at_open
            while left > 0:
                messages = await scan.next(256, within_s=SILENT_S)
                left = messages[-1].pending if messages else 0
                for message in messages:
                    self._letters_from = message.sequence + 1
                    self._letters.add(decode(message.data, DeadLetter).source)

    async def _profiles_waiting(self) -> int:
        bus = self._buses["ftp-gateway"]
        info = await bus.js.consumer_info(PROFILES_READER.stream.name, PROFILES_READER.name)
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    async def _read_corpus(self) -> None:
        """Read the messages that the mesh has stored, as each user may."""
        for user, bus in self._buses.items():
            found: list[tuple[str, bytes]] = []
            for name, subject in GRANTS[user].scans:
                stream = nats_messages.stream_named(name)
                async with open_scan(bus, stream, subject=subject, last_per_subject=True) as scan:
                    left = scan.pending_at_open
                    while left > 0 and len(found) < CORPUS_MESSAGES:
                        # The server's count may be too large where entries are written meanwhile.
                        messages = await scan.next(64, within_s=SILENT_S)
                        left = messages[-1].pending if messages else 0
                        found += [(message.subject, message.data) for message in messages]
            self._corpus[user] = [data for _, data in found]
            writes = nats_messages.filters_of(user)
            # Damaged configuration stays out of the way of requests: it is that of an app that has nothing else.
            self._known[user] = [
                CONFIG.subject_of(subject.removeprefix(CONFIG.prefix).replace("mess", "torn"))
                if subject.startswith(CONFIG.prefix)
                else subject
                for subject, _ in found
                if ".mess" in subject and any(nats_messages.lets_through(one, subject) for one in writes)
            ]
