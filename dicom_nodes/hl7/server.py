"""The MLLP listener: hands each message from the wire to a function, sends its answers back.

It knows framing and limits, not HL7. A peer can neither hold a slot by sending slowly (the whole of
a message has one deadline), nor memory (a size), nor the listener (a number of connections). An
answer goes out when the function returned, so that durability is its business; when it raises, the
connection is closed without an answer, and the sender sends again.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import ipaddress
import ssl
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from dicom_nodes.errors import NodeConfigError
from dicom_nodes.hl7 import mllp

T = TypeVar("T")

#: (message, address of the peer) -> answers, in order; none = stay silent. Called in a thread.
Handler = Callable[[bytes, str], Sequence[bytes]]
#: (why, address of the peer): told when a connection is ended by us.
Observe = Callable[[str, str], None]

HANDSHAKE_S = 10.0
START_S = 10.0
CLOSE_S = 2.0
LINGER_S = 0.05


@dataclass(frozen=True)
class MllpSettings:
    """Where to listen, and the limits.

    Attributes:
        idle_timeout_s: how long a connection may wait between messages.
        message_timeout_s: how long a message may take from its first to its last byte.
        allowed_networks: empty = anybody who reaches the address.
        workers: messages handled at once; those of one connection always one after the other.
    """

    host: str = "127.0.0.1"
    port: int = 0
    max_message_bytes: int = 1 << 20
    max_connections: int = 16
    idle_timeout_s: float = 600.0
    message_timeout_s: float = 30.0
    allowed_networks: tuple[str, ...] = ()
    tls: ssl.SSLContext | None = None
    workers: int = 4


class MllpServer:
    """Listens from `start` to `stop`, on a thread of its own."""

    def __init__(
        self,
        settings: MllpSettings,
        handler: Handler,
        observe: Observe = lambda _why, _peer: None,
    ) -> None:
        self._settings = settings
        self._handler = handler
        self._observe = observe
        self._networks = [ipaddress.ip_network(n, strict=False) for n in settings.allowed_networks]
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._busy: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._pool = concurrent.futures.ThreadPoolExecutor(settings.workers, "hl7")

    @property
    def port(self) -> int:
        """Where it listens."""
        if self._server is None or not self._server.sockets:
            return self._settings.port
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    def start(self) -> None:
        """Bind and listen.

        Raises:
            NodeConfigError: the address cannot be bound.
        """
        thread = threading.Thread(target=self._loop.run_forever, name="hl7-listener", daemon=True)
        thread.start()
        self._thread = thread
        try:
            self._call(self._open(), START_S)
        except OSError as error:
            self.stop(0)
            raise NodeConfigError(
                f"hl7: cannot listen at {self._settings.host}:{self._settings.port} "
                f"({error.strerror}); choose another port, or stop what listens there"
            ) from error

    def stop(self, drain_s: float = 10.0) -> None:
        """Take no more, finish the messages in hand (up to `drain_s`), close all connections."""
        if self._thread is None:
            self._loop.close()
            return
        self._call(self._close(drain_s), drain_s + START_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_S)
        self._thread = None
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._loop.close()

    def _call(self, work: Awaitable[T], timeout_s: float) -> T:
        async def run() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(timeout_s)

    async def _open(self) -> None:
        settings = self._settings
        self._server = await asyncio.start_server(
            self._accept,
            settings.host,
            settings.port,
            limit=settings.max_message_bytes + len(mllp.END),
            ssl=settings.tls,
            ssl_handshake_timeout=HANDSHAKE_S if settings.tls else None,
        )

    async def _close(self, drain_s: float) -> None:
        self._stopping = True
        if self._server is not None:
            # asyncio loses a connection that it has accepted, but not set up, when it is closed
            for listener in self._server.sockets:
                self._loop.remove_reader(listener.fileno())
            await asyncio.sleep(LINGER_S)
            self._server.close()
        if self._busy:
            await asyncio.wait(set(self._busy), timeout=drain_s)
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(set(self._connections), timeout=START_S)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = writer.get_extra_info("peername")
        peer = str(address[0]) if address else ""
        refused = self._refusal(peer)
        if refused:
            self._observe(refused, peer)
            await _closed(writer)
            return
        task = cast("asyncio.Task[None]", asyncio.current_task())  # start_server makes one of us
        self._connections.add(task)
        try:
            await self._converse(reader, writer, peer, task)
        except _HangUpError as error:
            self._observe(str(error), peer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the peer hung up: it may
        except asyncio.CancelledError:
            pass  # we stop
        finally:
            await _closed(writer)
            self._connections.discard(task)
            self._busy.discard(task)

    def _refusal(self, peer: str) -> str:
        if len(self._connections) >= self._settings.max_connections:
            return "too many connections"
        if self._networks:
            address = ipaddress.ip_address(peer.partition("%")[0])
            mapped = getattr(address, "ipv4_mapped", None)
            if not any((mapped or address) in network for network in self._networks):
                return "not in allowed_networks"
        return ""

    async def _converse(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        peer: str,
        task: asyncio.Task[None],
    ) -> None:
        while not self._stopping:
            if not await self._begins(reader):
                return
            message = await self._message(reader)
            self._busy.add(task)
            answers = await self._answers(message, peer)
            for answer in answers:
                writer.write(mllp.frame(answer))
            await _within(writer.drain(), self._settings.message_timeout_s, "answer not read")
            self._busy.discard(task)

    async def _begins(self, reader: asyncio.StreamReader) -> bool:
        """Wait for a message to begin; False when the peer hung up instead."""
        while True:
            byte = await _within(reader.read(1), self._settings.idle_timeout_s, "idle too long")
            if byte == mllp.START:
                return True
            if not byte:
                return False
            if byte not in mllp.BETWEEN:
                raise _HangUpError("not MLLP")

    async def _message(self, reader: asyncio.StreamReader) -> bytes:
        timeout_s = self._settings.message_timeout_s
        try:
            framed = await _within(reader.readuntil(mllp.END), timeout_s, "message took too long")
        except asyncio.LimitOverrunError:
            raise _HangUpError("message too large") from None
        return framed[: -len(mllp.END)]

    async def _answers(self, message: bytes, peer: str) -> Sequence[bytes]:
        work = self._loop.run_in_executor(self._pool, self._handler, message, peer)
        try:
            return await work
        except Exception as error:
            # recorded by whoever raised; no answer is the one thing every sender repeats upon
            raise _HangUpError(f"not handled ({type(error).__name__})") from error


async def _closed(writer: asyncio.StreamWriter) -> None:
    """Close, and see it closed; a peer that does not read what is left loses it."""
    writer.close()
    try:
        await asyncio.wait_for(writer.wait_closed(), CLOSE_S)
    except (OSError, TimeoutError):
        writer.transport.abort()


class _HangUpError(Exception):
    """We end the connection; the text says why, in our own words."""


async def _within(work: Awaitable[T], timeout_s: float, why: str) -> T:
    try:
        return await asyncio.wait_for(work, timeout_s)
    except TimeoutError:
        raise _HangUpError(why) from None
