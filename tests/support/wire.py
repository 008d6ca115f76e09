"""A proxy in front of PostgreSQL that records statements, counts round trips and injects faults.

`Wire(dsn)` listens on a port of its own and forwards all messages. It parses the frontend protocol
(https://www.postgresql.org/docs/current/protocol.html) as far as necessary: it knows the end of a
message, the statement of a message, and whether the server has answered. So a fault happens at one
point of the conversation instead of at some time:

    async with Wire(dsn) as wire, asyncsvc.connect(wire.dsn) as svc:
        injection = wire.inject(Fault.LOSE_REPLY, "append_message")
        ...                                  # the append is applied, and its reply is lost
        assert injection.count == 1
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

# The messages that end a request: Query, Sync and Flush, after which the client waits; CopyDone and
# CopyFail, since asyncpg sends the data directly after its COPY; a password; Terminate.
CLIENT_WAITS_AFTER = b"QSH"
ENDS_REQUEST = CLIENT_WAITS_AFTER + b"cfpX"
READY_FOR_QUERY = b"Z"
ENCRYPTION_REQUESTS = {80877103, 80877104}  # TLS and GSSAPI, which are declined


class Fault(enum.Enum):
    """A fault of one request or of its reply."""

    LOSE_REQUEST = "the connection is reset before the server receives the request"
    CUT_REQUEST = "the server receives a part of the request, then the connection is reset"
    STALL_REQUEST = "the connection forwards nothing until `resume`, and stays open"
    LOSE_REPLY = "the server runs the request, and the connection is reset before the reply"
    CUT_REPLY = "the server runs the request, and the connection is reset amid the reply"
    STALL_REPLY = "the server runs the request, and the client receives the reply after `resume`"


RESETS = [fault for fault in Fault if not fault.name.startswith("STALL")]


@dataclass
class Injection:
    """A fault for the next requests with a statement."""

    fault: Fault
    text: str
    """A part of the text of the statement, such as the name of its file."""
    max_count: int
    count: int = 0
    """How often the fault has happened."""

    def matches(self, request: "Request") -> bool:
        return self.count < self.max_count and any(self.text in text for text in request.run)


@dataclass
class Request:
    """The messages that a client sends before it waits."""

    data: bytes = b""
    parsed: list[str] = field(default_factory=list)
    run: list[str] = field(default_factory=list)
    """The texts of its statements, also of prepared ones, whose text is not sent again."""
    client_waits: bool = False


class Wire:
    """A TCP proxy in front of the server of `dsn`. Connect to its own `dsn`."""

    dsn: str

    def __init__(self, dsn: str) -> None:
        self._target = urllib.parse.urlsplit(dsn)
        self._port = 0
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._injections: list[Injection] = []
        self._random_faults: tuple[random.Random, float] | None = None
        self.cut_at: Callable[[int], int] = lambda length: length // 2
        """Returns the byte at which a request or reply of a length is cut, by default its half."""
        self.flows = asyncio.Event()
        self.statements: list[str] = []
        """The text of every statement that was parsed or run, in order."""
        self.round_trips = 0
        """How often a client sent a request and then waited for the server."""
        self.fault_count = 0
        """How many faults have happened."""
        self.before_statement: Callable[[str], Awaitable[object]] | None = None
        """Called with the text of each statement before it is forwarded, so that a test can act
        between 2 statements of one call."""

    async def __aenter__(self) -> Self:
        self.flows.set()
        await self.accept_connections()
        login = self._target.netloc.rpartition("@")[0]
        netloc = f"{login}@127.0.0.1:{self._port}"
        self.dsn = self._target._replace(netloc=netloc).geturl()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.refuse_connections()
        self.reset()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the loop releases closed sockets in its next turn

    # ------------------------------------------------------------- for tests

    def inject(self, fault: Fault, text: str, *, times: int = 1) -> Injection:
        """Inject a fault into the next requests with a statement that contains the text."""
        injection = Injection(fault, text, times)
        self._injections.append(injection)
        return injection

    def inject_at_random(self, seed: int, share: float) -> None:
        """Reset connections before, amid or after about this share of all requests."""
        self._random_faults = (random.Random(seed), share)

    def stop_injecting(self) -> None:
        """End `inject_at_random`."""
        self._random_faults = None

    def stall(self) -> None:
        """Forward nothing and close nothing, as a firewall that drops packets."""
        self.flows.clear()

    def resume(self) -> None:
        """Forward the messages that were held back, and all later ones."""
        self._injections.clear()
        self.flows.set()
        for link in self._links:
            link.flows.set()

    def reset(self) -> None:
        """Reset all connections on both sides."""
        for link in list(self._links):
            link.reset()

    def refuse_connections(self) -> None:
        """Accept no further connections. Open ones stay open."""
        self._server.close()

    async def accept_connections(self) -> None:
        """Accept connections, also again after `refuse_connections`."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    # -------------------------------------------------------------------- for links

    def fault_for(self, request: Request) -> Fault | None:
        fault = self._fault_for(request)
        self.fault_count += fault is not None
        return fault

    def _fault_for(self, request: Request) -> Fault | None:
        for injection in self._injections:
            if injection.matches(request):
                injection.count += 1
                return injection.fault
        if self._random_faults is not None and request.run:
            chance, share = self._random_faults
            if chance.random() < share:
                return chance.choice(RESETS)
        return None

    async def record(self, request: Request) -> None:
        self.statements += [*request.parsed, *request.run]
        if self.before_statement is not None:
            for text in request.run:
                await self.before_statement(text)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(self, reader, writer)
        self._links.add(link)
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            await link.run(self._target.hostname, self._target.port)
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # the client or the server closed the connection, or the test has ended
        finally:
            link.close()
            self._links.discard(link)
            self._tasks.discard(task)


class Link:
    """One connection through the proxy."""

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
        self._reply_fault: Fault | None = None

    async def run(self, host: str, port: int) -> None:
        startup = await self._startup()
        await self._wait_while_stalled()
        self._server, self._to_server = await asyncio.open_connection(host, port)
        self._to_server.write(startup)
        requests = asyncio.create_task(self._forward_requests())
        replies = asyncio.create_task(self._forward_replies())
        try:
            # If one side closes its connection, the other one is closed too.
            await asyncio.wait({requests, replies}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            requests.cancel()
            replies.cancel()
            await asyncio.gather(requests, replies, return_exceptions=True)

    def reset(self) -> None:
        """Close both sides by RST, which discards unread data."""
        for writer in (self._to_client, self._to_server):
            if writer is not None and not writer.transport.is_closing():
                tcp = writer.get_extra_info("socket")
                tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()

    def close(self) -> None:
        for writer in (self._to_client, self._to_server):
            if writer is not None:
                writer.close()

    async def _wait_while_stalled(self) -> None:
        await self.wire.flows.wait()
        await self.flows.wait()

    # --------------------------------------------------------------- client to server

    async def _startup(self) -> bytes:
        """Return the client's first message, which has no type; decline encryption."""
        while True:
            length = await self._client.readexactly(4)
            body = await self._client.readexactly(int.from_bytes(length) - 4)
            code = int.from_bytes(body[:4])
            if code not in ENCRYPTION_REQUESTS:
                return length + body
            await self._wait_while_stalled()
            self._to_client.write(b"N")

    async def _forward_requests(self) -> None:
        while True:
            request = await self._read_request()
            await self.wire.record(request)
            await self._wait_while_stalled()
            await self._send(request)

    async def _send(self, request: Request) -> None:
        fault = self.wire.fault_for(request)
        if fault is Fault.LOSE_REQUEST:
            self.reset()
            return
        if fault is Fault.CUT_REQUEST:
            self._to_server.write(request.data[: self.wire.cut_at(len(request.data))])
            await self._to_server.drain()
            self.reset()
            return
        if fault is Fault.STALL_REQUEST:
            self.flows.clear()
            await self._wait_while_stalled()
        elif fault is not None:
            self._reply_fault = fault
        self._count(request)
        self._to_server.write(request.data)
        await self._to_server.drain()

    def _count(self, request: Request) -> None:
        """Count a change of direction: the client sends after the server did."""
        if request.client_waits and self._server_spoke_last:
            self.wire.round_trips += 1
            self._server_spoke_last = False

    async def _read_request(self) -> Request:
        request = Request()
        while True:
            kind, message = await _message(self._client)
            request.data += message
            self._record_statement(kind, message[5:], request)
            if kind in ENDS_REQUEST:
                request.client_waits = kind in CLIENT_WAITS_AFTER
                return request

    def _record_statement(self, kind: bytes, body: bytes, request: Request) -> None:
        """Record the statement of a message: Query, Parse, or Bind of a prepared one."""
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

    async def _forward_replies(self) -> None:
        held = b""
        while True:
            kind, message = await _message(self._server)
            self._server_spoke_last = True
            if self._reply_fault is None:
                await self._wait_while_stalled()
                self._to_client.write(message)
                await self._to_client.drain()
                continue
            held += message
            if kind == READY_FOR_QUERY:
                await self._apply(self._reply_fault, held)
                self._reply_fault, held = None, b""

    async def _apply(self, fault: Fault, reply: bytes) -> None:
        """Apply the fault to a complete reply."""
        match fault:
            case Fault.LOSE_REPLY:
                self.reset()
            case Fault.CUT_REPLY:
                self._to_client.write(reply[: self.wire.cut_at(len(reply))])
                await self._to_client.drain()
                self.reset()
            case Fault.STALL_REPLY:
                self.flows.clear()
                await self._wait_while_stalled()
                self._to_client.write(reply)


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read one message; return its type and the complete message."""
    head = await reader.readexactly(5)
    return head[:1], head + await reader.readexactly(int.from_bytes(head[1:]) - 4)
