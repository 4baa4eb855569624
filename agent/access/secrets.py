"""Random secrets and their digests: what we keep cannot be used to log in."""

from __future__ import annotations

import hashlib
import hmac
import secrets

TOKEN_PREFIX = "wla_"  # noqa: S105  lets scanners of leaked secrets find ours


def new_secret() -> str:
    """256 random bits as URL-safe text."""
    return secrets.token_urlsafe(32)


def new_token() -> str:
    """A bearer token."""
    return TOKEN_PREFIX + new_secret()


def digest(secret: str) -> str:
    """What is stored. No salt and no stretching: 256 random bits cannot be guessed."""
    return hashlib.sha256(secret.encode()).hexdigest()


def csrf_token(session_secret: str) -> str:
    """What a page of this session must repeat; only who knows the cookie can make it."""
    return hmac.new(session_secret.encode(), b"csrf", hashlib.sha256).hexdigest()
