"""The tokenizer as every part uses it: a `tokenizer.json` opened so that text is always only text.

Contract: `decode(encode(t)) == NFC(t)` for every string; what looks like a special token in a document is encoded as
ordinary text, specials enter by id only (`encode_chat`, EOS by the encode stage). The fingerprint is the SHA-256 of
the file. Cost: `tokenizers`' own encoder, about 2.5 MB/s on one core.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from pipeline.core.chat import BOS, EOS, PAD, SPECIAL_TOKENS, Run, chat_runs, prompt_runs
from pipeline.core.errors import InputError

FILE = "tokenizer.json"
REQUIRED = tuple(token for token in SPECIAL_TOKENS if not token.startswith("<|reserved_"))


@dataclass(frozen=True)
class Tokenizer:
    """An opened tokenizer; immutable and picklable."""

    fingerprint: str  # sha256 of tokenizer.json
    vocabulary_size: int
    special_ids: Mapping[str, int]
    _whole: tokenizers.Tokenizer  # knows the special tokens: for decoding
    _plain: tokenizers.Tokenizer  # does not: for encoding text

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Open `tokenizer.json`, or the folder it lies in.

        Raises:
            InputError: The file is missing, not a tokenizer, or lacks one of the special tokens of the chat format.
        """
        path = Path(path)
        file = path / FILE if path.is_dir() else path
        if not file.is_file():
            raise InputError("no such tokenizer", where=str(file), fix="train one or give the path of a tokenizer.json")
        data = file.read_bytes()
        try:
            description = json.loads(data)
            whole = tokenizers.Tokenizer.from_str(data.decode("utf-8"))
        except Exception as error:  # the library raises plain Exception
            raise InputError(f"not a tokenizer.json: {error}", where=str(file)) from None
        special_ids = {token["content"]: int(token["id"]) for token in description["added_tokens"]}
        missing = [token for token in REQUIRED if token not in special_ids]
        if missing:
            raise InputError(
                f"the tokenizer lacks {len(missing)} special tokens: {', '.join(missing)}",
                where=str(file),
                fix="add them as added_tokens, or train a tokenizer",
            )
        # NFC is made before encoding, with one Unicode version for all that we do.
        description |= {"added_tokens": [], "normalizer": None, "post_processor": None}
        return cls(
            fingerprint=hashlib.sha256(data).hexdigest(),
            vocabulary_size=whole.get_vocab_size(with_added_tokens=True),
            special_ids=special_ids,
            _whole=whole,
            _plain=tokenizers.Tokenizer.from_str(json.dumps(description)),
        )

    def description(self) -> dict[str, Any]:
        """The content of tokenizer.json, parsed anew."""
        return json.loads(self._whole.to_str())

    @property
    def pad_id(self) -> int:
        return self.special_ids[PAD]

    @property
    def bos_id(self) -> int:
        return self.special_ids[BOS]

    @property
    def eos_id(self) -> int:
        return self.special_ids[EOS]

    def encode(self, text: str) -> list[int]:
        """Token ids of NFC(text); no special token is ever added or recognised."""
        return self._plain.encode(nfc(text), add_special_tokens=False).ids

    def encode_with_specials(self, text: str) -> list[int]:
        """Token ids of NFC(text), names of special tokens read as such: for text of our own making."""
        return self._whole.encode(nfc(text), add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """[tokens] uint32 ids of each text, on as many threads as `tokenizers` takes."""
        found = self._plain.encode_batch_fast([nfc(text) for text in texts], add_special_tokens=False)
        return [np.array(one.ids, np.uint32) for one in found]

    def decode(self, token_ids: Sequence[int] | np.ndarray) -> str:
        """The text of the ids; specials become their names, bytes that are no UTF-8 become U+FFFD."""
        ids = token_ids.tolist() if isinstance(token_ids, np.ndarray) else list(token_ids)
        return self._whole.decode(ids, skip_special_tokens=False)

    def token(self, token_id: int) -> str:
        """The text of one id."""
        return self.decode([token_id])

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        thinking: bool = True,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """The conversation as text, ending in the prompt for the next answer, with or without thinking."""
        return "".join(run.text for run in [*chat_runs(messages, tools), *prompt_runs(thinking=thinking)])

    def encode_prompt(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        thinking: bool = True,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> list[int]:
        """Token ids of `render_chat`, the contents of messages never read as special."""
        token_ids, _ = self._encode_runs([*chat_runs(messages, tools), *prompt_runs(thinking=thinking)])
        return token_ids.tolist()

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> tuple[np.ndarray, np.ndarray]:
        """A whole conversation for training: ([tokens] uint32 ids, [tokens] uint8 1 = counts in the loss).

        Ends in EOS (the end of the last turn). Only what assistants write counts, the end of their turns included.
        """
        return self._encode_runs(training_runs(messages, tools))

    def _encode_runs(self, runs: Sequence[Run]) -> tuple[np.ndarray, np.ndarray]:
        pieces = [[self.special_ids[run.text]] if run.special else self.encode(run.text) for run in runs]
        token_ids = np.array([token for piece in pieces for token in piece], np.uint32)
        flags = np.repeat(np.array([run.counts for run in runs], np.uint8), [len(piece) for piece in pieces])
        return token_ids, flags


def training_runs(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> list[Run]:
    """The runs of a whole conversation, ending in the end of the last turn, without the line feed after it."""
    if not messages:
        raise InputError("a conversation without messages", fix="drop the document or give it messages")
    return chat_runs(messages, tools)[:-1]


def nfc(text: str) -> str:
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)
