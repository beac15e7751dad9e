"""The example's golden set: always the same, of text that training never saw, a slice a domain."""

from __future__ import annotations

from collections import Counter

from examples.tiny.domains import DOMAINS, HERE
from examples.tiny.model import CONTEXT
from examples.tiny.publish import GOLDEN_PER_DOMAIN
from moe_artifacts.golden import sha256_of
from moe_artifacts.golden_text import Rules, make_golden

DIGEST = "013cf1ee383f5dd0f0b4faa91c42b50a9e140e9f9dc9afde2dac48871b3c3eb6"


def test_it_is_the_one_that_manifests_name() -> None:
    texts = [HERE / "heldout" / f"{domain}.txt" for domain in DOMAINS]
    rules = Rules(of_bytes=True, limit=GOLDEN_PER_DOMAIN)
    golden = make_golden(((path, path.read_bytes()) for path in texts), rules)
    assert golden.slices == DOMAINS
    counts = Counter(sequence.slice for sequence in golden.sequences)
    assert counts == dict.fromkeys(DOMAINS, GOLDEN_PER_DOMAIN)
    assert {len(sequence.tokens) for sequence in golden.sequences} == {CONTEXT}
    assert sha256_of(golden) == DIGEST
