"""The search environment: two tools over an index, their calls and results as messages.

Contract: `search(query)` lists pages with a snippet each, `open(url, pattern)` asks a page; names and parameters are
those of K-EXAONE's published example, the wording is ours. Calls are checked against the declarations; a call that
cannot be made gives a result that says why, as a server would. Messages are rows of the document schema's `messages`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synth.subagents.index import Page, SearchIndex
from synth.subagents.terms import fits, sentences
from synth.subagents.wording import wording

Message = Mapping[str, Any]
SNIPPET_CHARACTERS = 160
TOOLS: tuple[Mapping[str, Any], ...] = (
    {
        "name": "search",
        "description": "Search the pages. Words between double quotes must occur as they stand.",
        "parameters": {
            "type": "object",
            "properties": {"query": {"type": "string", "minLength": 1, "description": "What to look for."}},
            "required": ["query"],
            "additionalProperties": False,
        },
    },
    {
        "name": "open",
        "description": "Open a page and get a summary of it with the answer to a question.",
        "parameters": {
            "type": "object",
            "properties": {
                "url": {"type": "string", "minLength": 1, "description": "Address of the page, from a search."},
                "pattern": {"type": "string", "minLength": 1, "description": "The question to ask of the page."},
            },
            "required": ["url", "pattern"],
            "additionalProperties": False,
        },
    },
)


@dataclass(frozen=True)
class Call:
    """One tool call."""

    name: str
    arguments: Mapping[str, Any]

    def as_message(self) -> dict[str, str]:
        """The entry of a message's `tool_calls`."""
        return {"name": self.name, "arguments": json.dumps(dict(self.arguments), ensure_ascii=False)}


def assistant(reasoning: str, content: str, call: Call | None = None) -> Message:
    calls = [call.as_message()] if call else None
    return {"role": "assistant", "reasoning": reasoning or None, "content": content or None, "tool_calls": calls}


def tool_result(content: str) -> Message:
    return {"role": "tool", "content": content}


def call_fault(call: Call) -> str:
    """Why a call does not fit its declaration, or an empty string."""
    from jsonschema import Draft202012Validator

    declared = next((tool for tool in TOOLS if tool["name"] == call.name), None)
    if declared is None:
        return f"no tool `{call.name}`; there are: {', '.join(str(tool['name']) for tool in TOOLS)}"
    errors = sorted(Draft202012Validator(declared["parameters"]).iter_errors(dict(call.arguments)), key=str)
    return str(errors[0].message) if errors else ""


def search_result(index: SearchIndex, query: str, limit: int, language: str) -> str:
    """The result of `search`."""
    pages = index.search(query, limit)
    if not pages:
        return wording(language).no_results
    return "\n\n".join(
        f"{rank}. {page.title}\n{page.url}\n{_snippet(page, query, index)}" for rank, page in enumerate(pages, start=1)
    )


def _snippet(page: Page, query: str, index: SearchIndex) -> str:
    """The sentence that fits the query best, cut to a length around its beginning."""
    every = fits(sentences(page.text), query, index.weight)
    if not every:
        return ""
    best = max(every, key=lambda fit: (fit.share, -fit.position)).sentence
    return best if len(best) <= SNIPPET_CHARACTERS else f"{best[:SNIPPET_CHARACTERS].rstrip()}…"


def listed_addresses(result: str) -> list[str]:
    """The addresses in a result of `search`, best first."""
    found = [line.strip() for line in result.split("\n")]
    return list(dict.fromkeys(line for line in found if line.startswith(("https://", "http://")) and " " not in line))


def calls_with_results(history: Sequence[Message]) -> Iterator[tuple[Call, str]]:
    """Each call of a history with what the tool said."""
    call: Call | None = None
    for message in history:
        if message["role"] == "assistant" and message.get("tool_calls"):
            made = message["tool_calls"][0]
            call = Call(made["name"], json.loads(made["arguments"]))
        elif message["role"] == "tool" and call is not None:
            yield call, str(message["content"])
            call = None


def rendered(history: Sequence[Message]) -> str:
    """A history as the Compressor reads it: calls and results, thoughts left out."""
    return "\n\n".join(
        f"{call.name} {call.as_message()['arguments']}\n{result}" for call, result in calls_with_results(history)
    )
