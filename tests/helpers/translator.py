"""A translator that knows the samples: answers requests from the parallel texts, with the marks where they belong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from synth.cache import Replay, Request
from synth.masking import mask
from synth.passages import JOINT
from synth.translation import CLOSE, MARKED, OPEN, pieces_of

Fault = Callable[[str], str]  # what a bad translator does to its answer


def completion(content: str, finish_reason: str = "stop", reasoning: str = "") -> dict[str, Any]:
    message = {"role": "assistant", "content": content, "reasoning_content": reasoning}
    usage = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
    return {"model": "translator", "choices": [{"message": message, "finish_reason": finish_reason}], "usage": usage}


def with_marks_of(translation: str, pieces: Sequence[str]) -> str:
    """The translation masked, its marks numbered as in the source that `pieces` come from: equal pieces first, then by
    order (a formula has another notation of numbers), and nothing masked that the source has as prose."""
    masked, own = mask(translation)
    free = list(range(len(pieces)))
    places: dict[int, int] = {}
    for equal in (True, False):
        for number, piece in enumerate(own):
            found = next((index for index in free if pieces[index] == piece or not equal), None)
            if number not in places and found is not None:
                free.remove(found)
                places[number] = found
    for number, piece in enumerate(own):
        masked = masked.replace(f"⟦{number}⟧", f"⟦@{places[number]}⟧" if number in places else piece)
    return masked.replace("⟦@", "⟦")


def answers(source: str, translation: str, requests: Sequence[Request], segment: int, fault: Fault = str) -> list[Any]:
    """A completion for each request about `source`, paragraph for paragraph out of `translation`."""
    parts = translation.split(JOINT)
    found = []
    for piece in pieces_of(source, segment):
        count = len(piece.masked.split(JOINT))
        own, parts = parts[:count], parts[count:]
        if MARKED.sub("", piece.masked):
            found.append(completion(fault(f"{OPEN}{with_marks_of(JOINT.join(own), piece.pieces)}{CLOSE}")))
    assert len(found) == len(requests)
    return found


def replay(pairs: Mapping[str, Any]) -> Replay:
    """Recorded responses by key."""
    return Replay(pairs, "memory", "synth.x", "replay")
