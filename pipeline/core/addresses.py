"""Web addresses as lists name them: domains with all below them, and beginnings of addresses.

Contract: scheme, user, port, fragment, case and a trailing slash make no difference; international host names compare
in their ASCII form (RFC 5891). An entry without a path is a domain and stands for its subdomains; one with a path
stands for itself and everything below it (`/users` for `/users/ada` and `/users?x`, not for `/usersguide`).
Cost of a look-up: one set look-up a label of the host and a part of the path, however long the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Address:
    """A host, and the path with its query; both in lower case."""

    host: str
    path: str  # empty, or begins with a slash

    @property
    def text(self) -> str:
        return self.host + self.path


def address_of(url: str) -> Address | None:
    """The address that a URL, or a list's line without scheme, names; None when it has no host."""
    text = url.strip().lower()
    text = text if "://" in text else f"//{text.removeprefix('//')}"
    try:
        parts = urlsplit(text)
        host = ascii_host(parts.hostname or "")
    except ValueError:  # for example an unfinished IPv6 address
        return None
    if not host or any(character.isspace() for character in host):
        return None
    query = parts.query.rstrip()
    path = _trimmed(parts.path) + (f"?{query}" if query else "")
    return Address(host, f"/{path}" if path.startswith("?") else path)


def _trimmed(path: str) -> str:
    """Without the slashes and the space at its end, in whatever order they stand."""
    while path.endswith("/") or path != path.rstrip():
        path = path.rstrip().rstrip("/")
    return path


@lru_cache(maxsize=4096)
def ascii_host(host: str) -> str:
    """The host in lower-case ASCII (`xn--…`), without the root's dot; itself where it is no valid name."""
    host = host.lower().rstrip(".")
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        return host


def parent_domains(host: str) -> Iterator[str]:
    """The host and every domain above it: `a.b.c`, `b.c`, `c`."""
    labels = host.split(".")
    for first in range(len(labels)):
        yield ".".join(labels[first:])


def beginnings(path: str) -> Iterator[str]:
    """The path and what it lies below, longest first: `/a/b?q`, `/a/b`, `/a`."""
    end = len(path)
    while end > 0:
        yield path[:end]
        end = max(path.rfind("/", 0, end), path.rfind("?", 0, end))


@dataclass(frozen=True)
class AddressList:
    """Domains, and beginnings of addresses."""

    domains: frozenset[str]
    prefixes: frozenset[str]

    @classmethod
    def of(cls, lines: Iterable[str]) -> AddressList:
        """From lines of a list; `#` starts a comment."""
        domains: set[str] = set()
        prefixes: set[str] = set()
        for line in lines:
            found = address_of(line.split("#", 1)[0])
            if found is not None:
                (prefixes if found.path else domains).add(found.text)
        return cls(frozenset(domains), frozenset(prefixes))

    def domain_of(self, address: Address) -> str | None:
        """The listed domain that the address lies in."""
        return next((domain for domain in parent_domains(address.host) if domain in self.domains), None)

    def prefix_of(self, address: Address) -> str | None:
        """The listed beginning of the address."""
        found = (address.host + part for part in beginnings(address.path))
        return next((text for text in found if text in self.prefixes), None) if self.prefixes else None
