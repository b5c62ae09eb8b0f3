"""The tokenizer contract: exact round trip, text is only text, chat format equal to the Jinja template's."""

from __future__ import annotations

import json
import pickle
import unicodedata
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.core.chat import SPECIAL_TOKENS
from pipeline.core.errors import InputError
from pipeline.core.files import write_json
from pipeline.core.tokenizer import Tokenizer
from stages.tokenizer.superbpe import build, train
from stages.tokenizer.train import tokenizer_settings

TEXTS = [
    "The water in the river rises when the snow in the mountains melts. It is the start of the year.\n" * 3,
    "def read(path):\n    with open(path) as handle:\n        return handle.read()\n" * 3,
    "강물은 산의 눈이 녹을 때 불어난다. 강물은 봄에 가장 높다.\n" * 3,
    "川の水は山の雪が溶けると増えます。春に一番高くなります。\n" * 3,
    "Nước sông dâng lên khi tuyết trên núi tan. Nước sông cao nhất vào mùa xuân.\n" * 3,
]
CHAT = [
    {"role": "system", "content": "Answer briefly."},
    {"role": "user", "content": "What is 2 + 2?"},
    {"role": "assistant", "reasoning": "Add them.", "content": "It is 4."},
    {"role": "user", "content": "And the weather?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"name": "weather", "arguments": '{"city": "서울"}'}],
    },
    {"role": "tool", "content": '{"sky": "clear"}'},
    {"role": "assistant", "content": "Clear."},
]
TOOLS = [{"name": "weather", "description": "Sky over a city", "parameters": {"city": {"type": "string"}}}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    trained = train(lambda: TEXTS, 560, 0.02, 2)
    assert trained.complete
    build(trained).save(str(folder / "tokenizer.json"), pretty=False)
    write_json(folder / "tokenizer_config.json", tokenizer_settings())
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.one_of(
        st.text(),
        st.text(alphabet="aàa\u0300e ー가각\u1100\u1161\u11a8が\u304b\u3099ệ\u0302\u0323\n\r\t '`0129<|>/é😀"),
        st.lists(st.sampled_from(["<|endofturn|>", "<think>", "the ", "강물", " ", "\n"])).map("".join),
    )
)
def test_decode_of_encode_is_the_nfc_text(tokenizer: Tokenizer, text: str) -> None:
    expected = unicodedata.normalize("NFC", text)
    assert tokenizer.decode(tokenizer.encode(text)) == expected
    batch = tokenizer.encode_batch([text, text + "!"])
    assert batch[0].dtype == np.uint32
    assert batch[0].tolist() == tokenizer.encode(text)


@given(data=st.binary(max_size=40))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_byte_has_a_token(tokenizer: Tokenizer, data: bytes) -> None:
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    assert len(alphabet) == 256
    text = data.decode("latin-1")  # every code point below 256: one or two bytes of UTF-8 each
    assert all(token < tokenizer.vocabulary_size for token in tokenizer.encode(text))
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_reserved_ids_are_the_published_ones(tokenizer: Tokenizer) -> None:
    known = {0: "<|pad|>", 1: "<|bos|>", 50: "<|system|>", 51: "<|user|>", 52: "<|assistant|>", 53: "<|endofturn|>"}
    known |= {54: "<think>", 55: "</think>", 49: "<|reserved_49|>"}
    for number, token in known.items():
        assert tokenizer.special_ids[token] == number
        assert tokenizer.token(number) == token
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) == (0, 1, 53)
    assert sorted(tokenizer.special_ids.values()) == list(range(64))
    assert tokenizer.vocabulary_size == 560


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_text_that_looks_special_is_text(tokenizer: Tokenizer, token: str) -> None:
    ids = tokenizer.encode(f"a {token} b")
    assert min(ids) >= 64
    assert tokenizer.decode(ids) == f"a {token} b"
    chat, _ = tokenizer.encode_chat([{"role": "user", "content": token}])
    assert [i for i in chat.tolist() if i < 64] == [51, 53]


def test_digits_stand_alone(tokenizer: Tokenizer) -> None:
    assert [tokenizer.token(i) for i in tokenizer.encode("2026")] == ["2", "0", "2", "6"]


def test_chat_flags_count_only_what_the_assistant_writes(tokenizer: Tokenizer) -> None:
    ids, counts = tokenizer.encode_chat(CHAT, tools=TOOLS)
    assert ids.shape == counts.shape
    assert ids[-1] == tokenizer.eos_id
    counted = "".join(tokenizer.decode(ids[start:end]) for start, end, flag in _spans(counts) if flag)
    assert counted == (
        "\nAdd them.\n</think>\n\nIt is 4.<|endofturn|>"
        '\n\n<tool_call>{"name": "weather", "arguments": {"city": "서울"}}</tool_call><|endofturn|>'
        "\n\nClear.<|endofturn|>"
    )


def _spans(flags: np.ndarray) -> list[tuple[int, int, int]]:
    edges = [0, *(np.flatnonzero(np.diff(flags)) + 1).tolist(), len(flags)]
    return [(a, b, int(flags[a])) for a, b in pairwise(edges)]


@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize("tools", [[], TOOLS])
def test_chat_equals_transformers_template(
    folder: Path, tokenizer: Tokenizer, thinking: bool, tools: list[dict[str, object]]
) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(str(folder))
    wanted = {"tools": tools or None, "enable_thinking": thinking, "add_generation_prompt": True}
    text = theirs.apply_chat_template(CHAT, tokenize=False, **wanted)
    assert tokenizer.render_chat(CHAT, thinking=thinking, tools=tools) == text
    assert tokenizer.encode_prompt(CHAT, thinking=thinking, tools=tools) == theirs(text)["input_ids"]
    whole, _ = tokenizer.encode_chat(CHAT, tools=tools)
    plain = theirs.apply_chat_template(CHAT, tokenize=False, tools=tools or None)
    assert whole.tolist() == theirs(plain.rstrip("\n"))["input_ids"]
    assert theirs.pad_token_id == 0
    assert theirs.eos_token_id == 53


def test_thinking_marks_survive_skipping_special_tokens(folder: Path, tokenizer: Tokenizer) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(str(folder))
    ids, _ = tokenizer.encode_chat([{"role": "assistant", "reasoning": "why", "content": "so"}])
    assert theirs.decode(ids.tolist(), skip_special_tokens=True) == "\n<think>\nwhy\n</think>\n\nso"


def test_pickled_tokenizer_is_the_same(tokenizer: Tokenizer) -> None:
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again.fingerprint == tokenizer.fingerprint
    assert again.encode(TEXTS[2]) == tokenizer.encode(TEXTS[2])


def test_wrong_files_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such tokenizer"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"not a tokenizer\.json"):
        Tokenizer.load(tmp_path)
    description = json.loads((folder / "tokenizer.json").read_text())
    description["added_tokens"] = description["added_tokens"][:53]
    (tmp_path / "tokenizer.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match=r"lacks 11 special tokens: <\|endofturn\|>"):
        Tokenizer.load(tmp_path)


def test_unknown_role_is_named(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="unknown role `teacher`"):
        tokenizer.encode_chat([{"role": "teacher", "content": "x"}])
