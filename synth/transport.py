"""HTTP connections that cost little with hundreds in flight: one httpx transport a connection, last used first.

A connection pool looks at every connection for every request, which is most of the time spent at hundreds of them;
here a request takes an idle connection from a stack. Kept from httpx: TLS settings and certificates of the
environment, proxies of the environment, keep-alive, reconnection, decompression. Cost: about 0.6 ms a request.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.request import getproxies, proxy_bypass

import httpx

CONNECT_SECONDS = 30.0
LIMITS = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=60.0)
# Reading has no limit of its own: an attempt has one as a whole.
EXTENSIONS = {"timeout": {"connect": CONNECT_SECONDS}}


class Connections:
    """Connections to one address. For one event loop at a time."""

    def __init__(self, url: str, headers: Sequence[tuple[str, str]]) -> None:
        """`headers` go with every request."""
        self.url = httpx.URL(url)
        host = self.url.netloc.decode("ascii")
        self._headers = [("Host", host), ("Content-Type", "application/json"), ("Accept", "application/json")]
        self._headers += [("Accept-Encoding", "gzip, deflate"), *headers]
        self._tls = httpx.create_ssl_context()
        self._proxy = None if proxy_bypass(self.url.host) else getproxies().get(self.url.scheme)
        self._idle: list[httpx.AsyncHTTPTransport] = []
        self._all: list[httpx.AsyncHTTPTransport] = []

    async def post(self, content: bytes) -> httpx.Response:
        """The whole answer to one POST. Raises `httpx.TransportError`."""
        connection = self._idle.pop() if self._idle else self._open()
        try:
            headers = [*self._headers, ("Content-Length", str(len(content)))]
            request = httpx.Request("POST", self.url, headers=headers, content=content, extensions=EXTENSIONS)
            response = await connection.handle_async_request(request)
            response.request = request
            try:
                await response.aread()
            finally:
                await response.aclose()
            return response
        finally:
            self._idle.append(connection)  # a broken one opens again by itself

    def _open(self) -> httpx.AsyncHTTPTransport:
        connection = httpx.AsyncHTTPTransport(verify=self._tls, limits=LIMITS, proxy=self._proxy)
        self._all.append(connection)
        return connection

    async def close(self) -> None:
        for connection in self._all:
            await connection.aclose()
