"""The provenance table: one row a request, kept or not, in `STEP/requests/00000.parquet`.

Contract: latency and attempts are those of the run that got the answer (they lie in the response store), so a step made
again from the store gives the same bytes; recorded responses have neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pyarrow as pa

from synth.cache import Request
from synth.completion import Completion, ContentError

REQUESTS = "requests"
REQUEST_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),  # kept, the drop reason of the sample, or why neither
        pa.field("prompt", pa.string(), nullable=False),  # id@version
        pa.field("prompt_hash", pa.string(), nullable=False),
        pa.field("asked_model", pa.string(), nullable=False),
        pa.field("model", pa.string()),  # what the server said
        pa.field("parameters", pa.string(), nullable=False),  # JSON object
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("finish_reason", pa.string()),
        pa.field("prompt_tokens", pa.int64()),
        pa.field("completion_tokens", pa.int64()),
        pa.field("attempts", pa.int32()),
        pa.field("latency_ms", pa.int64()),
        pa.field("error", pa.string()),  # of an answer that is no completion
        pa.field("parents", pa.list_(pa.string()), nullable=False),
        pa.field("licenses", pa.list_(pa.string()), nullable=False),
        pa.field("lang", pa.string()),
        pa.field("reasoning", pa.large_string()),
        pa.field("content", pa.large_string()),
    ]
)


def request_row(
    request: Request, outcome: Completion | ContentError, row: Mapping[str, Any], verdict: str
) -> dict[str, Any]:
    """The row of one request about one document."""
    found: dict[str, Any] = {
        "key": request.key,
        "verdict": verdict,
        "prompt": request.prompt,
        "prompt_hash": request.prompt_hash,
        "asked_model": request.model,
        "parameters": orjson.dumps(dict(request.parameters), option=orjson.OPT_SORT_KEYS).decode(),
        "sample": request.sample,
        "parents": [row["id"]],
        "licenses": [row["license"]] if row["license"] else [],
        "lang": row["lang"],
    }
    if isinstance(outcome, ContentError):
        return {**found, "error": str(outcome)}
    return {
        **found,
        "model": outcome.model,
        "finish_reason": outcome.finish_reason,
        "prompt_tokens": outcome.usage.get("prompt_tokens"),
        "completion_tokens": outcome.usage.get("completion_tokens"),
        "attempts": outcome.attempts,
        "latency_ms": outcome.latency_ms,
        "reasoning": outcome.reasoning,
        "content": outcome.content,
    }
