"""HTTP connections that cost little with hundreds in flight: kept alive, last used first, one request at a time each.

A connection pool looks at every connection for every request, and a parser in Python reads every header: at hundreds of
connections that is most of the time spent. Here a request takes an idle connection from a stack, and httptools (llhttp,
as in uvicorn and Node.js) reads the answer. TLS settings and certificates are httpx's; where the environment names a
proxy for the server, httpx carries the request. Cost: about 0.08 ms a request directly, 0.6 ms through a proxy.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.request import getproxies, proxy_bypass

import httptools
import httpx

CONNECT_SECONDS = 30.0
PROXY_LIMITS = httpx.Limits(max_connections=1, max_keepalive_connections=1)
PROXY_TIMEOUT = httpx.Timeout(None, connect=CONNECT_SECONDS)  # reading: an attempt has a limit as a whole


class ConnectFailed(Exception):
    """The server does not take connections."""


class Broken(Exception):
    """The connection ended or the answer is not HTTP."""


@dataclass(frozen=True)
class Answer:
    """A whole HTTP answer."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")


class Connections(Protocol):
    """Connections to one address. For one event loop at a time."""

    async def post(self, content: bytes) -> Answer:
        """The whole answer to one POST. Raises `ConnectFailed` and `Broken`."""
        ...

    async def close(self) -> None: ...


def connections_to(url: str, headers: Sequence[tuple[str, str]]) -> Connections:
    """Connections that post to `url`; `headers` go with every request."""
    address = httpx.URL(url)
    proxy = None if proxy_bypass(address.host) else getproxies().get(address.scheme)
    return DirectConnections(address, headers) if proxy is None else ProxiedConnections(address, headers, proxy)


class DirectConnections:
    """Connections without a proxy."""

    def __init__(self, url: httpx.URL, headers: Sequence[tuple[str, str]]) -> None:
        self._host, self._port = url.host, url.port or (443 if url.scheme == "https" else 80)
        self._tls: ssl.SSLContext | None = httpx.create_ssl_context() if url.scheme == "https" else None
        lines = [("Host", url.netloc.decode("ascii")), ("Content-Type", "application/json")]
        lines += [("Accept", "application/json"), *headers]
        written = "".join(f"{name}: {value}\r\n" for name, value in lines)
        self._head = f"POST {url.raw_path.decode('ascii')} HTTP/1.1\r\n{written}Content-Length: ".encode("latin-1")
        self._idle: list[_Line] = []

    async def post(self, content: bytes) -> Answer:
        message = b"%b%d\r\n\r\n%b" % (self._head, len(content), content)
        while self._idle:
            line = self._idle.pop()
            if line.usable:
                try:
                    return await self._exchange(line, message)
                except Broken:
                    if line.heard:
                        raise
                    break  # the server closed the idle connection meanwhile: once more on a fresh one
        return await self._exchange(await self._open(), message)

    async def _exchange(self, line: _Line, message: bytes) -> Answer:
        try:
            answer = await line.exchange(message)
        except BaseException:
            line.abort()
            raise
        if line.usable:
            self._idle.append(line)
        return answer

    async def _open(self) -> _Line:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, line = await loop.create_connection(_Line, self._host, self._port, ssl=self._tls)
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            raise ConnectFailed(f"{type(error).__name__}: {error}") from None
        return line

    async def close(self) -> None:
        for line in self._idle:
            line.abort()
        self._idle.clear()


class _Line(asyncio.Protocol):
    """One connection; the callbacks of httptools have names of their own."""

    def __init__(self) -> None:
        self.usable = True
        self.heard = False  # whether anything came since the last request
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    async def exchange(self, message: bytes) -> Answer:
        """Send one request and wait for its answer."""
        assert self._transport is not None
        self.heard = False
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(message)
        return await self._answer

    def abort(self) -> None:
        self.usable = False
        self._answer = None
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self.heard = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(f"not an HTTP answer: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        framed = "content-length" in self._headers or "transfer-encoding" in self._headers
        if self._headers and not framed and exc is None:
            self._finish()  # the end of the connection is the end of the body
        else:
            self._fail("the connection ended before the answer did")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() >= 200:
            self.usable = self.usable and self._parser.should_keep_alive()
            self._finish()
        self._headers, self._body = {}, []

    def _finish(self) -> None:
        if self._answer is not None and not self._answer.done():
            body = b"".join(self._body)
            self._answer.set_result(Answer(self._parser.get_status_code(), self._headers, body))
        self._answer = None

    def _fail(self, why: str) -> None:
        self.usable = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Broken(why))
        self._answer = None


class ProxiedConnections:
    """Connections through a proxy, one httpx transport each."""

    def __init__(self, url: httpx.URL, headers: Sequence[tuple[str, str]], proxy: str) -> None:
        self._url, self._proxy = url, proxy
        self._headers = [("Content-Type", "application/json"), *headers]
        self._tls = httpx.create_ssl_context()
        self._idle: list[httpx.AsyncClient] = []
        self._all: list[httpx.AsyncClient] = []

    async def post(self, content: bytes) -> Answer:
        client = self._idle.pop() if self._idle else self._open()
        try:
            answer = await client.post(self._url, content=content)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            raise ConnectFailed(f"{type(error).__name__}: {error}") from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise Broken(f"{type(error).__name__}: {error}") from None
        finally:
            self._idle.append(client)  # a broken one opens again by itself
        return Answer(answer.status_code, dict(answer.headers), answer.content)

    def _open(self) -> httpx.AsyncClient:
        client = httpx.AsyncClient(
            verify=self._tls, proxy=self._proxy, limits=PROXY_LIMITS, timeout=PROXY_TIMEOUT, headers=self._headers
        )
        self._all.append(client)
        return client

    async def close(self) -> None:
        for client in self._all:
            await client.aclose()
