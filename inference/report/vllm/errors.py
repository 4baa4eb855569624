"""What goes wrong between us and a vLLM server, and whether asking again can help.

DraftError
├── UnsafeEmbeddings   (permanent)  these embeddings must not reach a server that others share
├── RequestRefused     (permanent)  the server says that the request is wrong
├── AnswerRefused      (permanent)  it answered, but not with what was asked for
├── ServerFault        (transient)  dead, hanging, overloaded, or failing in the middle
│   └── ServerPoisoned (transient)  it computed NaN: nothing it said lately can be believed
├── ServerUnfit        (transient)  it is up, but set up in a way that we may not use
└── NoReplica          (transient)  every replica is broken or busy for longer than we may wait
"""

from __future__ import annotations

from inference.report.errors import AnswerError, DraftError


class UnsafeEmbeddings(DraftError):
    """Embeddings that would harm the server's other requests, or are nobody's prompt."""


class RequestRefused(DraftError):
    """HTTP 4xx: asking the same again gives the same."""


class AnswerRefused(AnswerError):
    """The words of the answer do not count as findings; greedy decoding would repeat them."""


class ServerFault(DraftError):
    """The server did not answer, or broke while it did."""

    permanent = False


class ServerPoisoned(ServerFault):
    """NaN in the server's numbers; measured: it spreads to the requests of other studies."""


class ServerUnfit(DraftError):
    """The server lacks something that drafting relies on; mended by its operator."""

    permanent = False


class NoReplica(DraftError):
    """Nobody to ask at the moment."""

    permanent = False
