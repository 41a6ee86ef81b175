"""What the environment says of proxies and certificates, which httpx uses."""

from __future__ import annotations

from typing import Final
from urllib.request import getproxies, proxy_bypass

from forwardscope.backends.server_url import ServerUrl

__all__ = ["proxy_hint", "unusable"]

_HINT: Final = (
    " Requests go through the proxy that the environment names; put its host into NO_PROXY if "
    "it is reached without one"
)


def unusable(error: Exception) -> str:
    """Return what is wrong with the environment; nothing of its values, which may be secret.

    Args:
        error: What httpx raised when a client was made.
    """
    if isinstance(error, ImportError):
        return "the environment names a SOCKS proxy, which needs the package socksio"
    if isinstance(error, OSError):
        return (
            "a file that SSL_CERT_FILE or SSLKEYLOGFILE names cannot be used; correct or unset it"
        )
    return (
        "a proxy in HTTP_PROXY, HTTPS_PROXY, ALL_PROXY or NO_PROXY is no URL that can be used; "
        "correct or unset it"
    )


def proxy_hint(url: ServerUrl) -> str:
    """Return a hint where the environment names a proxy for a server; else an empty text."""
    proxies = getproxies()
    named = proxies.get(url.api.partition(":")[0]) or proxies.get("all")
    return _HINT if named and not proxy_bypass(url.address) else ""
