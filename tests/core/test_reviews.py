"""Reviews: who stands behind a mix, and that only an approved card lets it through."""

from __future__ import annotations

import pytest

from pipeline.core.errors import ConfigError, InputError
from pipeline.core.provenance import SourceCard, SourceTerms
from pipeline.reviews import check_release, check_training, origins

CARD = SourceCard(
    origin="invented", license="CC-BY-4.0", basis="licence", collected="2025-05-01", opt_out="robots", contact="x",
)  # fmt: skip
FILES = {"web": "cards/web.yaml", "books": "cards/books.yaml"}


def test_a_synthetic_set_stands_for_its_sources() -> None:
    sets = {"think": ("web-*",), "reason": (), "pairs": ("books", "web-ko")}
    found = origins(["think", "books", "reason"], ["web-ko", "web-en", "books", "notes"], sets)
    assert found == ("books", "web-en", "web-ko")
    assert origins(["reason"], ["web-ko"], sets) == ()


@pytest.mark.parametrize("point", ["review_collection", "review_training"])
@pytest.mark.parametrize("review", ["pending", "refused"])
def test_training_needs_collection_and_training_approved(point: str, review: str) -> None:
    cards = {"web": CARD, "books": CARD.replaced(**{point: review})}
    check_training("component `c`", ["web"], cards, FILES, "c.yaml:3")
    with pytest.raises(ConfigError, match=rf"c\.yaml:3: component `c` takes source `books`, whose {point} is {review}"):
        check_training("component `c`", ["web", "books"], cards, FILES, "c.yaml:3")


def test_release_names_every_source_and_its_card() -> None:
    cards = {"web": CARD.replaced(review_release="pending"), "books": CARD.replaced(review_release="refused")}
    check_training("component `c`", cards, cards, FILES, "")
    with pytest.raises(InputError) as caught:
        check_release("extend", ["books", "web"], cards, FILES)
    text = caught.value.render()
    assert "`books`: review_release is refused (cards/books.yaml)" in text
    assert "`web`: review_release is pending (cards/web.yaml)" in text
    check_release("extend", ["books"], {"books": CARD}, FILES)


def test_what_decides_no_byte_is_not_in_the_terms() -> None:
    approved = CARD.replaced(review_release="refused", note="asked again", contact="y")
    assert CARD.terms() == approved.terms()
    assert type(CARD.terms()) is SourceTerms
    assert CARD.terms() != CARD.replaced(review_training="pending").terms()
    assert CARD.terms() != CARD.replaced(license="MIT").terms()
