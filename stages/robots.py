"""What a page says about being used: robots directives and text-and-data-mining reservations.

Sources: robots meta tag and `X-Robots-Tag` header (RFC 9309's companions, as crawlers read them), `noai` and
`noimageai` (as used by large hosting sites), `tdm-reservation` and `tdm-policy` (W3C TDM Reservation Protocol, 2024).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

HEAD_CHARACTERS = 1 << 16
_META_TAG = re.compile(r"<meta\b[^>]{0,1000}>", re.I)
_ATTRIBUTE = re.compile(r"""([A-Za-z-]+)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""")
_AGENT = re.compile(r"^[a-z0-9_.-]+:(?!\s*\d)")  # `googlebot: noindex`: for one crawler only


def declarations(html: str, headers: Mapping[str, str]) -> str | None:
    """The page's directives, sorted, lower case, separated by `, `; None when it declares nothing.

    `tdm-reservation` and `tdm-policy` are given as `name=value`.

    Args:
        html: The page; only its first `HEAD_CHARACTERS` are read.
        headers: HTTP headers, names in lower case.
    """
    found = set(_directives(headers.get("x-robots-tag", "")))
    for name in ("tdm-reservation", "tdm-policy"):
        if headers.get(name):
            found.add(f"{name}={headers[name].strip().lower()}")
    for tag in _META_TAG.findall(html[:HEAD_CHARACTERS]):
        attributes = {key.lower(): double or single or bare for key, double, single, bare in _ATTRIBUTE.findall(tag)}
        name, content = attributes.get("name", "").strip().lower(), attributes.get("content", "")
        if name == "robots":
            found.update(_directives(content))
        elif name in ("tdm-reservation", "tdm-policy") and content:
            found.add(f"{name}={content.strip().lower()}")
    return ", ".join(sorted(found)) or None


def _directives(value: str) -> Iterable[str]:
    for part in value.lower().split(","):
        directive = part.strip()
        if directive and not _AGENT.match(directive):
            yield directive
