"""The transport: framings of a body, connections closed while idle, TLS, and the environment's proxy."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from fault_server import running

from synth.cache import Request
from synth.client import EndpointClient, ask
from synth.completion import Completion
from synth.config import EndpointConfig
from synth.store import ResponseStore
from synth.transport import Answer, Broken, ConnectFailed, connections_to

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def head_of(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return head + await reader.readexactly(int(length.split(b":")[1]))


def answers_of(serve: Serve, posts: int, tls: ssl.SSLContext | None = None) -> list[Answer]:
    """The answers to some posts, one after the other, to a server of the test's own."""

    async def story() -> list[Answer]:
        listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
        port = listening.sockets[0].getsockname()[1]
        scheme, host = ("https", "localhost") if tls else ("http", "127.0.0.1")
        connections = connections_to(f"{scheme}://{host}:{port}/v1/chat/completions", [("Authorization", "Bearer x")])
        try:
            return [await asyncio.wait_for(connections.post(b"{}"), 5) for _ in range(posts)]
        finally:
            await connections.close()
            listening.close()

    return asyncio.run(story())


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", b"hello"),
        (b"Connection: close\r\n\r\nhello", b"hello"),
    ],
)
def test_each_framing_of_a_body_is_read(framing: bytes, body: bytes) -> None:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await head_of(reader))
        whole = b"HTTP/1.1 200 OK\r\nX-Kind: Test\r\n" + framing
        for start in range(0, len(whole), 7):  # in pieces, as networks do
            writer.write(whole[start : start + 7])
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    answers = answers_of(serve, 2)
    assert [(one.status, one.content, one.headers["x-kind"]) for one in answers] == [(200, body, "Test")] * 2
    assert asked[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"Authorization: Bearer x\r\n" in asked[0]


def test_a_connection_is_kept_and_one_closed_while_idle_is_replaced() -> None:
    opened = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        for _ in range(2):
            await head_of(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()
        writer.close()  # without a word: the client finds out when it uses the connection, or before

    assert [one.content for one in answers_of(serve, 6)] == [b"ok"] * 6
    assert opened == 3


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b"SSH-2.0-OpenSSH\r\n"])
def test_half_answers_and_other_protocols_are_broken(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(answer)
        await writer.drain()
        writer.close()

    with pytest.raises(Broken):
        answers_of(serve, 1)


def test_nobody_listening_is_a_failed_connection() -> None:
    with pytest.raises(ConnectFailed):
        asyncio.run(connections_to("http://127.0.0.1:9/v1", []).post(b"{}"))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_tls_is_checked_against_the_environments_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    more = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*made, *more], check=True, capture_output=True)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await head_of(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()

    with pytest.raises(ConnectFailed, match="certificate"):
        answers_of(serve, 1, tls)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert [one.content for one in answers_of(serve, 2, tls)] == [b"ok"] * 2


def test_the_environments_proxy_carries_the_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        monkeypatch.setenv("no_proxy", "")
        config = EndpointConfig.model_validate({"url": "http://somewhere.invalid/v1", "model": "m"})
        client = EndpointClient(config, ResponseStore(tmp_path, "w"), where="synth.x.endpoint")
        requests = [Request("m", ({"role": "user", "content": f"ok n{n}"},), {}, "test@1") for n in range(20)]
        outcomes = ask(requests, client)
    assert [one.content for one in outcomes if isinstance(one, Completion)] == [f"answer to ok n{n}" for n in range(20)]
