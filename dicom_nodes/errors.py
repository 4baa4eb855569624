"""Errors of the network edge.

NodeError
├── PeerUnavailable   (transient)  could not connect, associate, or the connection broke
├── PeerRefused       (permanent)  the peer answered: no, and will again
├── PeerBusy          (transient)  the peer answered: not now (out of resources, 5xx, 429)
└── NodeConfigError   (permanent)  our own settings cannot work
"""

from __future__ import annotations


class NodeError(Exception):
    """Something went wrong at the network edge."""

    permanent = False


class PeerUnavailable(NodeError):
    """The peer could not be reached, did not associate, or broke the connection."""


class PeerBusy(NodeError):
    """The peer asks to try again later."""


class PeerRefused(NodeError):
    """The peer refused for a reason that a retry does not change."""

    permanent = True


class NodeConfigError(NodeError):
    """Our own settings cannot work."""

    permanent = True
