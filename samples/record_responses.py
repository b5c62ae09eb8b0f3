"""Writes `samples/responses.jsonl`: the recorded answers that the quickstart's thinking set replays.

`samples/thinking/LANG/SLUG.md` holds a thought written for the document `samples/texts/LANG/SLUG.md`. For each pair
this makes the request that `synth.thinking` makes for that text under the default settings, and stores the thought as
a chat completion under the request's key. Run from the root after changing a text, a thought or a prompt:

    python samples/record_responses.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unicodedata import normalize

ROOT = Path(__file__).resolve().parent
FENCE = "---\n"


def body(path: Path) -> str:
    """The NFC text of a sample without its front matter."""
    text = normalize("NFC", path.read_text(encoding="utf-8"))
    if text.startswith(FENCE):
        text = text[len(FENCE) :].partition(f"\n{FENCE}")[2]
    return text.strip()


def completion(document: str, thought: str, model: str) -> dict[str, object]:
    """An answer in the shape of the chat completions protocol; usage counts white-space words, not tokens."""
    prompt_words, thought_words = len(document.split()), len(thought.split())
    message = {"role": "assistant", "content": "", "reasoning_content": thought}
    return {
        "object": "chat.completion",
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": prompt_words,
            "completion_tokens": thought_words,
            "total_tokens": prompt_words + thought_words,
        },
    }


def rows(samples: Path) -> list[dict[str, object]]:
    """One stored row per thought, sorted by language and slug."""
    from synth.config import ReplayConfig, ThinkingConfig
    from synth.thinking import requests_for

    config = ThinkingConfig.model_validate({"kind": "thinking", "from": ("articles",)})
    model = ReplayConfig(responses="responses.jsonl").model
    found = []
    for path in sorted((samples / "thinking").glob("*/*.md")):
        language, slug = path.parent.name, path.stem
        document = body(samples / "texts" / language / path.name)
        (request,) = requests_for(document, language, config, model, f"{language}/{slug}")
        found.append(request.row(completion(document, body(path), model)))
    return found


def main() -> None:
    sys.path.insert(0, str(ROOT.parent))
    from pipeline.core.files import write_text

    recorded = rows(ROOT)
    lines = [json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in recorded]
    write_text(ROOT / "responses.jsonl", "".join(lines))
    print(f"{len(recorded)} responses in {ROOT / 'responses.jsonl'}", file=sys.stderr)


if __name__ == "__main__":
    main()
