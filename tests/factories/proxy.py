"""A TCP proxy that makes a good peer a bad one: slow, dead in the middle, or deaf.

with proxy.running(pacs.dicom_port, delay_s=0.01) as slow:
    Node("PACS", "127.0.0.1", slow.port)
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

CHUNK = 8192


class Proxy:
    """Forwards connections to a port of 127.0.0.1.

    Attributes:
        delay_s: pause before every chunk of 8 KiB, either way.
        cut_after: close a connection after this many bytes from the client; None = never.
        answers_before_silence: lose what the server answers after this many chunks; None = never.
    """

    def __init__(
        self,
        target_port: int,
        *,
        delay_s: float = 0.0,
        cut_after: int | None = None,
        answers_before_silence: int | None = None,
    ) -> None:
        self.delay_s = delay_s
        self.cut_after = cut_after
        self.answers_before_silence = answers_before_silence
        self.connections = 0
        self._target_port = target_port
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self.port: int = self._listener.getsockname()[1]

    def start(self) -> None:
        """Begin to accept."""
        self._spawn(self._accept)

    def stop(self) -> None:
        """Close everything."""
        self._stop.set()
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _spawn(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stop.is_set():
            with suppress(TimeoutError):
                client, _ = self._listener.accept()
                self.connections += 1
                self._spawn(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._target_port), timeout=5)
        except OSError:
            client.close()
            return
        ended = threading.Event()
        backward = threading.Thread(
            target=self._pump, args=(server, client, ended, None, self.answers_before_silence)
        )
        backward.start()
        self._pump(client, server, ended, self.cut_after, None)
        backward.join()
        client.close()
        server.close()

    def _pump(
        self,
        source: socket.socket,
        sink: socket.socket,
        ended: threading.Event,
        limit: int | None,
        silent_after: int | None,
    ) -> None:
        seen = chunks = 0
        source.settimeout(0.05)
        with suppress(OSError):
            while not (self._stop.is_set() or ended.is_set()):
                try:
                    data = source.recv(CHUNK)
                except TimeoutError:
                    continue
                seen += len(data)
                if not data or (limit is not None and seen > limit):
                    break
                chunks += 1
                self._stop.wait(self.delay_s)
                if silent_after is None or chunks <= silent_after:
                    sink.settimeout(10)
                    sink.sendall(data)
                    sink.settimeout(0.05)
        ended.set()


@contextmanager
def running(target_port: int, **behaviour: object) -> Iterator[Proxy]:
    """Run a proxy for the length of a block; options as of `Proxy`."""
    proxy = Proxy(target_port, **behaviour)  # type: ignore[arg-type]
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
