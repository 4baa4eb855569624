"""The way to the audit repository: syslog over TLS (RFC 5425) or UDP (RFC 5426)."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Sequence

from agent.errors import AgentError
from agent.settings_access import AuditSettings

MAX_DATAGRAM = 65_000


class AuditNotSent(AgentError):
    """The repository did not take the messages; they wait in the database."""


def send(messages: Sequence[bytes], settings: AuditSettings) -> None:
    """Hand over all messages, in order.

    Raises:
        AuditNotSent: not all were taken; send all of them again (the repository may get some
            twice, none never).
    """
    try:
        if settings.transport == "udp":
            _by_datagrams(messages, settings)
        else:
            _over_tls(messages, settings)
    except OSError as error:
        raise AuditNotSent(
            f"audit repository {settings.repository}:{settings.port}: "
            f"{type(error).__name__}; check that it listens and its certificate"
        ) from error


def _over_tls(messages: Sequence[bytes], settings: AuditSettings) -> None:
    address = (settings.repository, settings.port)
    with (
        socket.create_connection(address, settings.timeout_s) as plain,
        _context(settings).wrap_socket(plain, server_hostname=settings.repository) as secure,
    ):
        for message in messages:
            secure.sendall(b"%d %s" % (len(message), message))
        _say_goodbye(secure)


def _say_goodbye(secure: ssl.SSLSocket) -> None:
    """Wait for the peer's own goodbye: it has then read all that we sent before ours.

    Syslog has no acknowledgement. A peer that just closes or says nothing in time took the bytes at
    least into its buffers; one that reset the connection did not.
    """
    try:
        secure.unwrap()
    except ConnectionError:
        raise
    except (ssl.SSLError, TimeoutError, OSError):
        return


def _by_datagrams(messages: Sequence[bytes], settings: AuditSettings) -> None:
    found = socket.getaddrinfo(settings.repository, settings.port, type=socket.SOCK_DGRAM)[0]
    family, kind, protocol, _, address = found
    with contextlib.closing(socket.socket(family, kind, protocol)) as channel:
        channel.connect(address)  # so that a closed port is told on the next send
        for message in messages:
            channel.send(message[:MAX_DATAGRAM])


def _context(settings: AuditSettings) -> ssl.SSLContext:
    tls = settings.tls
    context = ssl.create_default_context(cafile=str(tls.ca) if tls.ca else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.certificate and tls.key:
        context.load_cert_chain(tls.certificate, tls.key)
    return context
