"""A wire before PostgreSQL: it hears every statement, counts round trips, and breaks on demand.

`Wire(dsn)` listens on a port of its own and passes on whatever comes, message by message. It reads
the frontend protocol (https://www.postgresql.org/docs/current/protocol.html) as far as it must: it
knows where a message ends, which statement it is about, and when the server has answered. So a
fault happens at one point of the conversation, and not after some time:

    async with Wire(dsn) as wire, asyncsvc.connect(wire.dsn) as svc:
        strike = wire.strike(Fault.LOSE_REPLY, "append_message")
        ...                                  # the append is done, and nobody is told
        assert strike.hits == 1
"""

import asyncio
import enum
import random
import socket
import struct
import urllib.parse
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Self

# What ends a request: Query, Sync and Flush, after which the client waits; CopyDone and CopyFail,
# for asyncpg sends what is to be copied right behind its COPY; a password; Terminate.
WAITS = b"QSH"
ENDS_REQUEST = WAITS + b"cfpX"
READY_FOR_QUERY = b"Z"
CODES_WITHOUT_STARTUP = {80877103, 80877104}  # may we talk TLS, or GSSAPI? we may not


class Fault(enum.Enum):
    """What goes wrong with one request, or with its answer."""

    LOSE_REQUEST = "reset before the server hears of it"
    CUT_REQUEST = "the server hears half of it, then a reset"
    STALL_REQUEST = "nobody hears anything any more, and nothing is closed, until it heals"
    LOSE_REPLY = "the server does it and answers, the client gets a reset"
    CUT_REPLY = "the server does it and answers, the client gets half of that, then a reset"
    STALL_REPLY = "the server does it and answers, which the client hears when it heals"


RESETS = [fault for fault in Fault if not fault.name.startswith("STALL")]


@dataclass
class Strike:
    """A fault that waits for a statement."""

    fault: Fault
    text: str
    """A part of the statement's text, as the name of its file."""
    times: int
    hits: int = 0

    def meets(self, request: "Request") -> bool:
        return self.hits < self.times and any(self.text in text for text in request.run)


@dataclass
class Request:
    """What a client sends before it waits: one message or more."""

    data: bytes = b""
    parsed: list[str] = field(default_factory=list)
    run: list[str] = field(default_factory=list)
    """The texts that it has run: a prepared one's too, which does not cross the wire again."""
    waits: bool = False


class Wire:
    """A TCP proxy before the server of `dsn`. Connect to its own `dsn`."""

    dsn: str

    def __init__(self, dsn: str) -> None:
        self._target = urllib.parse.urlsplit(dsn)
        self._port = 0
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._strikes: list[Strike] = []
        self._storm: tuple[random.Random, float] | None = None
        self.flows = asyncio.Event()
        self.statements: list[str] = []
        """The text of every statement that was sent to be parsed or run, in order."""
        self.round_trips = 0
        """How often a client sent something and then waited for the server."""
        self.faults = 0
        """How many there were."""
        self.before: Callable[[str], Awaitable[object]] | None = None
        """Called with the text of each statement before it is passed on, so that a test can have
        something else happen between two statements of one call."""

    async def __aenter__(self) -> Self:
        self.flows.set()
        await self.accept()
        login = self._target.netloc.rpartition("@")[0]
        netloc = f"{login}@127.0.0.1:{self._port}"
        self.dsn = self._target._replace(netloc=netloc).geturl()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.refuse()
        self.reset()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # closed sockets are let go of in the loop's next turn

    # ------------------------------------------------------------- what a test does to it

    def strike(self, fault: Fault, text: str, *, times: int = 1) -> Strike:
        """Have a fault happen to the next requests that run a statement with this text in it."""
        strike = Strike(fault, text, times)
        self._strikes.append(strike)
        return strike

    def storm(self, seed: int, share: float) -> None:
        """Reset about this share of all requests, before, amid or after them, until `calm`."""
        self._storm = (random.Random(seed), share)

    def calm(self) -> None:
        self._storm = None

    def silence(self) -> None:
        """Pass nothing on and close nothing, as where a firewall drops what comes."""
        self.flows.clear()

    def heal(self) -> None:
        """Pass on what was held back, and what comes."""
        self._strikes.clear()
        self.flows.set()
        for link in self._links:
            link.flows.set()

    def reset(self) -> None:
        """Reset all connections, on both sides."""
        for link in list(self._links):
            link.reset()

    def refuse(self) -> None:
        """Let nobody connect any more; those who are stay."""
        self._server.close()

    async def accept(self) -> None:
        """Let clients connect, again too."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    # -------------------------------------------------------------------- what links ask

    def fault_for(self, request: Request) -> Fault | None:
        fault = self._fault_for(request)
        self.faults += fault is not None
        return fault

    def _fault_for(self, request: Request) -> Fault | None:
        for strike in self._strikes:
            if strike.meets(request):
                strike.hits += 1
                return strike.fault
        if self._storm is not None and request.run:
            dice, share = self._storm
            if dice.random() < share:
                return dice.choice(RESETS)
        return None

    async def heard(self, request: Request) -> None:
        self.statements += [*request.parsed, *request.run]
        if self.before is not None:
            for text in request.run:
                await self.before(text)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(self, reader, writer)
        self._links.add(link)
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            await link.run(self._target.hostname, self._target.port)
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # one of the two hung up, or the test is over
        finally:
            link.close()
            self._links.discard(link)
            self._tasks.discard(task)


class Link:
    """One connection through the wire."""

    def __init__(
        self, wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.wire = wire
        self.flows = asyncio.Event()
        self.flows.set()
        self._client, self._to_client = reader, writer
        self._to_server: asyncio.StreamWriter | None = None
        self._prepared: dict[bytes, str] = {}
        self._server_spoke_last = True
        self._fate: Fault | None = None

    async def run(self, host: str, port: int) -> None:
        startup = await self._startup()
        await self._pass()
        self._server, self._to_server = await asyncio.open_connection(host, port)
        self._to_server.write(startup)
        there = asyncio.create_task(self._requests())
        back = asyncio.create_task(self._replies())
        try:
            # When one side hangs up, so does the other.
            await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            there.cancel()
            back.cancel()
            await asyncio.gather(there, back, return_exceptions=True)

    def reset(self) -> None:
        """Hang up on both sides by RST: what was not read is lost."""
        for writer in (self._to_client, self._to_server):
            if writer is not None and not writer.transport.is_closing():
                tcp = writer.get_extra_info("socket")
                tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()

    def close(self) -> None:
        for writer in (self._to_client, self._to_server):
            if writer is not None:
                writer.close()

    async def _pass(self) -> None:
        """Wait while nothing passes."""
        await self.wire.flows.wait()
        await self.flows.wait()

    # --------------------------------------------------------------- client to server

    async def _startup(self) -> bytes:
        """Return the client's first message, which has no type; refuse to encrypt."""
        while True:
            length = await self._client.readexactly(4)
            body = await self._client.readexactly(int.from_bytes(length) - 4)
            code = int.from_bytes(body[:4])
            if code not in CODES_WITHOUT_STARTUP:
                return length + body
            await self._pass()
            self._to_client.write(b"N")

    async def _requests(self) -> None:
        while True:
            request = await self._request()
            await self.wire.heard(request)
            await self._pass()
            await self._send(request)

    async def _send(self, request: Request) -> None:
        fault = self.wire.fault_for(request)
        if fault is Fault.LOSE_REQUEST:
            self.reset()
            return
        if fault is Fault.CUT_REQUEST:
            self._to_server.write(request.data[: len(request.data) // 2])
            await self._to_server.drain()
            self.reset()
            return
        if fault is Fault.STALL_REQUEST:
            self.flows.clear()
            await self._pass()
        elif fault is not None:
            self._fate = fault  # what becomes of the answer
        self._count(request)
        self._to_server.write(request.data)
        await self._to_server.drain()

    def _count(self, request: Request) -> None:
        """Count a change of direction: the client speaks after the server did."""
        if request.waits and self._server_spoke_last:
            self.wire.round_trips += 1
            self._server_spoke_last = False

    async def _request(self) -> Request:
        request = Request()
        while True:
            kind, message = await _message(self._client)
            request.data += message
            self._read(kind, message[5:], request)
            if kind in ENDS_REQUEST:
                request.waits = kind in WAITS
                return request

    def _read(self, kind: bytes, body: bytes, request: Request) -> None:
        """Note the statement that a message is about: Query, Parse, or Bind of a prepared one."""
        if kind == b"Q":
            request.run.append(body[:-1].decode())
        elif kind == b"P":
            name, text, _ = body.split(b"\0", 2)
            self._prepared[name] = text.decode()
            request.parsed.append(self._prepared[name])
        elif kind == b"B":
            _, name, _ = body.split(b"\0", 2)
            request.run.append(self._prepared[name])

    # --------------------------------------------------------------- server to client

    async def _replies(self) -> None:
        held = b""
        while True:
            kind, message = await _message(self._server)
            self._server_spoke_last = True
            if self._fate is None:
                await self._pass()
                self._to_client.write(message)
                await self._to_client.drain()
                continue
            held += message
            if kind == READY_FOR_QUERY:
                await self._meet(self._fate, held)
                self._fate, held = None, b""

    async def _meet(self, fate: Fault, reply: bytes) -> None:
        """Do to a whole answer what was to happen to it."""
        match fate:
            case Fault.LOSE_REPLY:
                self.reset()
            case Fault.CUT_REPLY:
                self._to_client.write(reply[: len(reply) // 2])
                await self._to_client.drain()
                self.reset()
            case Fault.STALL_REPLY:
                self.flows.clear()
                await self._pass()
                self._to_client.write(reply)


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read one message: its type, and the whole of it."""
    head = await reader.readexactly(5)
    return head[:1], head + await reader.readexactly(int.from_bytes(head[1:]) - 4)
