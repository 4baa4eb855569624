"""Who asks, where people log in: the session cookie of a browser, the bearer token of a machine."""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.responses import Response

from agent.access.principal import Principal
from agent.access.sessions import Sessions
from agent.settings_access import WebAccess

#: Asked by pages on their own: they keep no idle session alive.
BACKGROUND = ("/fragments/", "/events", "/api/events")


class KnownAccess:
    """Sessions and tokens; nobody else comes in."""

    def __init__(self, sessions: Sessions, web: WebAccess) -> None:
        self.sessions = sessions
        self._secure = web.behind_proxy or web.tls.certificate is not None
        # The prefix makes browsers refuse the cookie from another path, host or plain HTTP.
        self.cookie = "__Host-wlagent" if self._secure else "wlagent"
        self._max_age_s = int(web.sessions.absolute_hours * 3600)

    def identify(self, connection: HTTPConnection) -> Principal | None:
        """Whose token or cookie it is; a token that is wrong is not made good by a cookie."""
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.sessions.find_token(token.strip())
        secret = connection.cookies.get(self.cookie, "")
        if not secret:
            return None
        by_hand = not connection.url.path.startswith(BACKGROUND)
        return self.sessions.find(secret, by_hand=by_hand)

    def keep(self, response: Response, secret: str) -> None:
        """Give a browser its session."""
        response.set_cookie(
            self.cookie,
            secret,
            max_age=self._max_age_s,
            path="/",
            secure=self._secure,
            httponly=True,
            samesite="lax",  # "strict" would log out who follows a link from RIS or PACS
        )

    def forget(self, response: Response, connection: HTTPConnection) -> None:
        """End the session of this browser, in the record and in the browser."""
        self.end(connection)
        response.delete_cookie(
            self.cookie, path="/", secure=self._secure, httponly=True, samesite="lax"
        )

    def end(self, connection: HTTPConnection) -> None:
        """End the session that the browser brought, if any."""
        secret = connection.cookies.get(self.cookie, "")
        if secret:
            self.sessions.end(secret)

    def keep_briefly(self, response: Response, name: str, value: str, path: str) -> None:
        """Bind one login to the browser that began it."""
        response.set_cookie(
            name,
            value,
            max_age=600,
            path=path,
            secure=self._secure,
            httponly=True,
            samesite="lax",
        )
