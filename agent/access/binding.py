"""May the page be served at this address? Pure."""

from __future__ import annotations

from agent.access.address import is_loopback
from agent.access.errors import UnsafeBinding
from agent.settings import WebSettings


def check(web: WebSettings) -> tuple[str, ...]:
    """Warnings about the configured address.

    Raises:
        UnsafeBinding: other machines could look at patients without a login or in plain text.
    """
    if not web.enabled or (is_loopback(web.host) and not web.behind_proxy):
        return ()
    known = web.auth != "none" or bool(web.user_header)
    if web.behind_proxy:
        if known:
            return ()
        return ("web.behind_proxy without web.auth or web.user_header: the proxy must log in all",)
    if web.insecure:
        return (f"web.insecure: {web.host} serves patient data without login or TLS to anybody",)
    missing = []
    if web.auth == "none":
        missing.append('login (web.auth = "local" or "oidc")')
    if web.tls.certificate is None:
        missing.append("TLS (web.tls.certificate and key)")
    if missing:
        raise UnsafeBinding(
            f"web.host {web.host} is not this machine alone and there is no "
            f"{' and no '.join(missing)}; set it, bind to 127.0.0.1, or say "
            "web.behind_proxy = true (a proxy does it) or web.insecure = true (nobody does)"
        )
    return ()
