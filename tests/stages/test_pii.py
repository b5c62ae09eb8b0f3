"""PII: what is masked, what stays, and that nothing beside a match ever changes."""

from __future__ import annotations

import json
import os
import random
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.documents import document_id, table_from_rows, text_hash
from pipeline.core.errors import ConfigError
from stages.block import verify
from stages.pii import PiiConfig, find, make, mask
from stages.pii_rules import KINDS, luhn
from stages.plugin import Plugin

DATA = Path(os.environ.get("SEODANG_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to ada.quill+news@example.com, please", "write to <EMAIL>, please"),
        ("주소는 gildong@example.com으로 정했다", "주소는 <EMAIL>으로 정했다"),
        ("連絡先はtaro@example.co.jpです。", "連絡先は<EMAIL>です。"),
        ("host 192.0.2.44, then 198.51.100.7.", "host <IP>, then <IP>."),
        ("listed as 2001:db8::8a2e, gone", "listed as <IP>, gone"),
        ("주민등록번호는 991231-3123455였다", "주민등록번호는 <RRN>였다"),
        ("call +1-202-555-0143 or (202) 555-0143", "call <PHONE> or <PHONE>"),
        ("ring 020 7946 0018 or 0161 496 0123", "ring <PHONE> or <PHONE>"),
        ("전화번호는 010-0000-1234로, 회사는 02-123-4567", "전화번호는 <PHONE>로, 회사는 <PHONE>"),
        ("llama al 612 34 56 78 o al 91 123 45 67", "llama al <PHONE> o al <PHONE>"),
        ("Tel. 612 345 678", "Tel. <PHONE>"),
        ("Rufen Sie 030 23125 123 oder (069) 90009-000 an", "Rufen Sie <PHONE> oder <PHONE> an"),
        ("+49 (0)69 90009-000", "<PHONE>"),
        ("電話は090-1234-5678、会社は03-1234-5678", "電話は<PHONE>、会社は<PHONE>"),
        ("Phone: 28-81-33-70, call 33 93 31 or call (12) 3650-8833", "Phone: <PHONE>, call <PHONE> or call <PHONE>"),
        ("Telefon: 0688 777 97 84; 電話番号：9469 9966。", "Telefon: <PHONE>; 電話番号：<PHONE>。"),
        ("gọi 0912 345 678 hoặc 0912345678", "gọi <PHONE> hoặc <PHONE>"),
        ("the card 4111 1111 1111 1111, or 378282246310005", "the card <CARD>, or <CARD>"),
        ("account GB82 WEST 1234 5698 7654 32 instead", "account <IBAN> instead"),
        ("Konto DE89370400440532013000.", "Konto <IBAN>."),
        ("export KEY=AKIAIOSFODNN7EXAMPLE", "export KEY=<SECRET>"),
        ("api_key = 'a8Fk29sLq0Zx81PqT7'", "api_key = '<SECRET>'"),
        ("token ghp_" + "a1B2" * 9 + " end", "token <SECRET> end"),
    ],
)
def test_masked(text: str, masked: str) -> None:
    assert mask(text)[0] == masked


@pytest.mark.parametrize(
    "text",
    [
        "1.2.3.4567 and 12.34.56.78.9 and 256.1.1.1",
        "version 1.2.3.44, v10.20.30.40, Python 3.11.7.0, 버전 10.2.3.4",
        "127.0.0.1 10.0.0.8 192.168.1.20 255.255.255.0 0.0.0.0 1.1.1.1",
        "2024-05-12, 12:34:56, 1990-2000, 3.14159265358979, ISBN 978-3-16-148410-0",
        "std::vector<int> a::b ::1 fe80::1 dead::beef",
        "población 712 345 678 habitantes",
        "010 020 030 040 050",
        "991332-3123455 and 801301-1234567",  # no such month; no such check digit
        "4111 1111 1111 1112 and 1234567812345678",  # Luhn fails; no issuer
        "GB82 WEST 1234 5698 7654 33",
        "Suite 330, Boston, MA 02111-1307, USA",  # ZIP+4
        "free: 538 538 1075  612 3456 77",
        "call 2024-05-12, phone 3.14159265, telephone 1990/1995",
        "they called 300 400 and the phone has 6.1 inches",
        "@app.route('/x') and user@host and a @ b.com",
        "password = 'aaaaaaaaaaaaaaaaaaaa'",
        "t.quantize(Decimal('+35236450.6'))",
        "0.4111111111111111 and 41111111111111110000",
    ],
)
def test_left_alone(text: str) -> None:
    assert mask(text) == (text, {})


def test_only_asked_kinds() -> None:
    assert mask("a@example.com 192.0.2.44", ("ip",))[0] == "a@example.com <IP>"


def test_counts_and_hashes_follow_the_text() -> None:
    texts = ["a@example.com b@example.com 192.0.2.44", "plain text", ""]
    rows = [
        {"id": document_id("web", str(i)), "text_hash": text_hash(t), "text": t, "source": "web"}
        for i, t in enumerate(texts)
    ]
    table = table_from_rows(rows)
    result = make(PiiConfig(), {}).apply(table)
    verify(table, result)
    assert result.counts == {"pii.documents": 1, "pii.email": 2, "pii.ip": 1}
    assert result.kept["text"].to_pylist() == ["<EMAIL> <EMAIL> <IP>", "plain text", ""]
    assert result.kept["text_hash"].to_pylist() == [text_hash(t) for t in result.kept["text"].to_pylist()]


def test_the_rrn_check_digit() -> None:
    # 8*2 + 0*3 + 0*4 + 1*5 + 0*6 + 1*7 + 1*8 + 2*9 + 3*2 + 4*3 + 5*4 + 6*5 = 122; 122 mod 11 = 1; 11 - 1 = 10 -> 0
    assert mask("번호 800101-1234560.")[0] == "번호 <RRN>."
    for wrong in range(1, 10):
        assert mask(f"번호 800101-123456{wrong}.")[0] == f"번호 800101-123456{wrong}."
    assert mask("주민등록번호: 800101-1234567")[0] == "주민등록번호: <RRN>"
    assert mask("210305-3123456")[0] == "<RRN>"  # born after the check digit was given up


@given(st.from_regex(r"[0-9]{12,18}", fullmatch=True))
def test_luhn_finds_every_single_digit_error(digits: str) -> None:
    right = next(digits + check for check in "0123456789" if luhn(digits + check))
    place = random.Random(digits).randrange(len(right))
    wrong = right[:place] + str((int(right[place]) + 1) % 10) + right[place + 1 :]
    assert not luhn(wrong)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                ["a@example.com", "192.0.2.44", "010-0000-1234", "4111 1111 1111 1111", "1.2.3.4567", "+1-202-555-0143"]
            ),
            st.text(alphabet="ab1.-:/ 가あ\n", max_size=6),
        ),
        max_size=8,
    ).map("".join)
)
def test_what_stands_beside_a_match_is_never_changed(text: str) -> None:
    spans = find(text)
    assert all(a < b for a, b, _ in spans)
    assert all(first[1] <= second[0] for first, second in pairwise(spans))
    masked, counts = mask(text)
    assert counts.total() == len(spans)
    rebuilt, last = [], 0
    for start, end, kind in spans:
        rebuilt += [text[last:start], f"<{kind.upper()}>"]
        last = end
    assert "".join([*rebuilt, text[last:]]) == masked
    for start, end, kind in spans:  # never a part of a longer number
        if kind != "email":
            assert not text[end : end + 1].isdigit()
            assert not text[max(0, start - 1) : start].isdigit()


def test_many_finds_in_one_long_text_take_linear_time() -> None:
    text = "mail ada@example.com, call 010-0000-1234 from 192.0.2.44\n" * 20_000
    masked, counts = mask(text)
    assert counts == {"email": 20_000, "phone": 20_000, "ip": 20_000}
    assert masked == "mail <EMAIL>, call <PHONE> from <IP>\n" * 20_000


def test_kinds_are_all_reachable() -> None:
    text = "k='x' AKIAIOSFODNN7EXAMPLE a@example.com DE89370400440532013000 주민번호 991231-3123455 4111111111111111 "
    assert {kind for _, _, kind in find(text + "192.0.2.44 010-0000-1234")} == set(KINDS) - {"name"}


@pytest.mark.skipif(
    not (DATA / "pii_presidio_en.parquet").is_file(), reason="needs SEODANG_DATA with pii_presidio_en.parquet"
)
def test_precision_and_recall_on_labelled_text() -> None:
    kinds = {
        "EMAIL_ADDRESS": "email",
        "IP_ADDRESS": "ip",
        "PHONE_NUMBER": "phone",
        "CREDIT_CARD": "card",
        "IBAN_CODE": "iban",
    }
    hits, totals, false = dict.fromkeys(kinds.values(), 0), dict.fromkeys(kinds.values(), 0), 0
    for row in pq.read_table(DATA / "pii_presidio_en.parquet").to_pylist():
        labels = json.loads(row["meta"])["spans"]
        spans = find(row["text"])
        for label in labels:
            if kind := kinds.get(label["entity_type"]):
                totals[kind] += 1
                hits[kind] += any(a < label["end_position"] and b > label["start_position"] for a, b, _ in spans)
        false += sum(
            not any(a < label["end_position"] and b > label["start_position"] for label in labels) for a, b, _ in spans
        )
    assert false == 0
    for kind in ("card", "iban", "email"):
        assert hits[kind] == totals[kind] > 0
    assert hits["phone"] == totals["phone"] == 17


def conversation(*messages: dict[str, object]) -> object:
    row = {"id": document_id("s", "1"), "text": "x", "text_hash": text_hash("x"), "source": "s", "lang": "en"}
    empty = {"reasoning": None, "content": None, "tool_calls": None}
    return table_from_rows([{**row, "messages": [{**empty, **one} for one in messages]}, {**row, "id": "b"}])


def test_messages_are_masked_and_arguments_stay_json() -> None:
    documents = conversation(
        {"role": "user", "content": "I am at ada.quill@example.com"},
        {
            "role": "assistant",
            "reasoning": "call 010-0000-1234",
            "tool_calls": [
                {"name": "pay", "arguments": '{"card": 4111111111111111, "to": ["a@example.com"], "n": 3}'},
                {"name": "note", "arguments": "not JSON: 192.0.2.44"},
                {"name": "none", "arguments": '{"spaces" :  1}'},
            ],
        },
    )
    result = make(PiiConfig(), {}).apply(documents)
    verify(documents, result)
    user, assistant = result.kept["messages"][0].as_py()
    assert user["content"] == "I am at <EMAIL>"
    assert assistant["reasoning"] == "call <PHONE>"
    arguments = [call["arguments"] for call in assistant["tool_calls"]]
    assert json.loads(arguments[0]) == {"card": "<CARD>", "to": ["<EMAIL>"], "n": 3}
    assert arguments[1:] == ["not JSON: <IP>", '{"spaces" :  1}']
    assert result.kept["messages"][1].as_py() is None
    assert result.counts == {
        "pii.card": 1, "pii.documents": 1, "pii.email": 2, "pii.ip": 1, "pii.phone": 1,
    }  # fmt: skip


def find_names(text: str, lang: str | None) -> list[tuple[int, int]]:
    """A plug-in for the test below."""
    assert lang == "en"
    at = text.find("Ada")
    return [(at, at + 3)] if at >= 0 else []


def test_names_are_found_by_a_plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    texts = ["Ada wrote from ada@example.com", "nobody"]
    rows = [{"id": t, "text": t, "text_hash": text_hash(t), "source": "s", "lang": "en"} for t in texts]
    plugin = Plugin(function="test_pii:find_names", version="1")
    result = make(PiiConfig(names=plugin), {}).apply(table_from_rows(rows))
    assert result.kept["text"].to_pylist() == ["<NAME> wrote from <EMAIL>", "nobody"]
    assert result.kept["text_hash"].to_pylist() == [text_hash("<NAME> wrote from <EMAIL>"), text_hash("nobody")]
    with pytest.raises(ConfigError, match="no_such_module"):
        make(PiiConfig(names=plugin.replaced(function="no_such_module:f")), {})
