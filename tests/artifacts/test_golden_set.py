"""Golden sets: there and back, always the same bytes, and refused where anything is off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_artifacts.__main__ import main
from moe_artifacts.artifact import read_metadata, sha256_of_file
from moe_artifacts.container import lay_out
from moe_artifacts.errors import BadArtifact, Refused, WrongDigest
from moe_artifacts.golden import Golden, Sequence, encode, read_golden, sha256_of
from moe_artifacts.golden_text import Rules, make_golden
from tests.artifacts.samples import GATE, with_metadata, write_artifact


def sequence(name: str, *tokens: int) -> Sequence:
    return Sequence(name, np.array(tokens, np.int32))


def sample(count: int = 8) -> Golden:
    sequences = [sequence("legal" if n % 2 else "code", *range(n, 2 * n + 2)) for n in range(count)]
    return Golden(64, ("code", "legal"), tuple(sequences))


def plain(golden: Golden) -> Any:
    return [(s.slice, s.tokens.tolist()) for s in golden.sequences]


@st.composite
def goldens(draw: st.DrawFn) -> Golden:
    names = draw(st.lists(st.text("aZ09", min_size=1, max_size=9), min_size=1, unique=True))[:16]
    vocab = draw(st.integers(2, 1 << 24))
    tokens = st.lists(st.integers(0, vocab - 1), min_size=2, max_size=9)
    least = max(8, len(names))
    drawn = draw(st.lists(tokens, min_size=least, max_size=least + 5))
    return Golden(
        vocab,
        tuple(names),
        tuple(sequence(names[n % len(names)], *given) for n, given in enumerate(drawn)),
    )


@given(goldens())
def test_a_set_comes_back_and_its_digest_needs_no_file(
    tmp_path_factory: pytest.TempPathFactory, golden: Golden
) -> None:
    path = tmp_path_factory.mktemp("golden") / "x.safetensors"
    path.write_bytes(encode(golden))
    digest = sha256_of(golden)
    assert digest == sha256_of_file(path)
    read = read_golden(path, digest)
    assert (read.vocab, read.slices, plain(read)) == (golden.vocab, golden.slices, plain(golden))


def test_the_digest_stays_what_it_was() -> None:
    assert sha256_of(sample()) == (
        "7a1772fd8189f25e0c87176d8b1f38e9669636f646d3f372de28d2bd22c7a749"
    )


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "golden.safetensors"
    path.write_bytes(content)
    return path


def arrays(**changed: Any) -> bytes:
    """A set of ten sequences of two tokens, with some of its tensors and metadata changed."""
    given: dict[str, Any] = {
        "tokens": np.zeros(20, np.int32),
        "offsets": np.arange(0, 21, 2, dtype=np.int64),
        "slice": np.zeros(10, np.int32),
        "slices": ["a"],
        "vocab": 4,
    }
    given |= changed
    fields = {"format": 1, "kind": "golden", "slices": given.pop("slices")}
    fields["vocab"] = given.pop("vocab")
    tensors = {name: array for name, array in given.items() if array is not None}
    codes = {"int32": "I32", "int64": "I64", "float32": "F32"}
    head = lay_out(
        {"moeops": json.dumps(fields)},
        ((name, codes[a.dtype.name], a.shape) for name, a in tensors.items()),
    )
    return head + b"".join(array.tobytes() for array in tensors.values())


def offsets(**at: int) -> Any:
    numbers = np.arange(0, 21, 2, dtype=np.int64)
    for place, value in at.items():
        numbers[int(place[1:])] = value
    return numbers


def first(value: int, count: int) -> Any:
    numbers = np.zeros(count, np.int32)
    numbers[0] = value
    return numbers


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param(arrays(tokens=None), "tensor tokens is missing", id="no tokens"),
        pytest.param(arrays(offsets=None), "tensor offsets is missing", id="no offsets"),
        pytest.param(arrays(slice=None), "tensor slice is missing", id="no slice"),
        pytest.param(arrays(more=np.zeros(1, np.int32)), "tensor more is none of", id="one more"),
        pytest.param(
            arrays(tokens=np.zeros(20, np.int64)),
            "tokens is I64 of shape .20.; it must be I32",
            id="kind of number",
        ),
        pytest.param(
            arrays(slice=np.zeros((5, 2), np.int32)), "it must be I32 of one dimension", id="matrix"
        ),
        pytest.param(
            arrays(offsets=offsets()[:-1]), "offsets has 10 numbers; it must have 11", id="few"
        ),
        pytest.param(arrays(offsets=offsets(_0=1)), "offsets go from 1 to 20", id="begin"),
        pytest.param(arrays(offsets=offsets(_10=18)), "offsets go from 0 to 18", id="end"),
        pytest.param(
            arrays(offsets=offsets(_3=99)), r"offsets\[4\] is 8; it must be 99 or more", id="back"
        ),
        pytest.param(
            arrays(offsets=offsets(_3=5)), "sequence 2 has 1 tokens; it must have 2", id="short"
        ),
        pytest.param(arrays(slice=first(1, 10)), r"slice\[0\] is 1; it must be from 0", id="slice"),
        pytest.param(arrays(slice=first(-1, 10)), r"slice\[0\] is -1", id="negative slice"),
        pytest.param(
            arrays(tokens=first(4, 20)), "the token 4; it must be from 0 to 3", id="vocab"
        ),
        pytest.param(arrays(tokens=first(-1, 20)), "the token -1", id="negative token"),
        pytest.param(arrays(slices=[]), "there are 0 slices", id="no slices"),
        pytest.param(arrays(slices=["a", "a"]), "slices.1. is 'a', which is there", id="twice"),
        pytest.param(arrays(slices=["-"]), "slices.0. is '-'; it must be 1 to 40", id="name"),
        pytest.param(arrays(slices=["a", "b"]), "slice 'b' has no sequence", id="unused"),
        pytest.param(arrays(slices="a"), "slices is 'a'; it must be a list", id="text"),
        pytest.param(arrays(vocab=1), "vocab is 1; it must be from 2", id="vocab of one"),
        pytest.param(
            arrays(offsets=np.array([0, 20]), slice=np.zeros(1, np.int32)),
            "there are 1 sequences; there must be 8 to 100000",
            id="one sequence",
        ),
        pytest.param(with_metadata(arrays(), format=2), "format is 2", id="format"),
        pytest.param(with_metadata(arrays(), kind="gate"), "kind is 'gate'", id="kind"),
        pytest.param(with_metadata(arrays(), vocab=None), "vocab is missing", id="no vocab"),
        pytest.param(arrays()[:-1], "bytes of data; its header speaks of", id="cut"),
        pytest.param(b"{}", "has 2 bytes", id="no safetensors"),
    ],
)
def test_what_is_off_is_refused_with_a_sentence(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    with pytest.raises(BadArtifact, match=sentence):
        read_golden(written(tmp_path, content))


def test_it_is_known_by_its_digest_and_by_its_kind(tmp_path: Path) -> None:
    path = written(tmp_path, encode(sample()))
    with pytest.raises(WrongDigest, match=f"{'0' * 64} was asked for"):
        read_golden(path, "0" * 64)
    with pytest.raises(BadArtifact, match="kind is 'golden'"):
        read_metadata(path)
    gate = write_artifact(tmp_path / "gate.safetensors", GATE)
    with pytest.raises(BadArtifact, match="kind is 'gate'; a golden set is wanted here"):
        read_golden(gate)


# -- from text -----------------------------------------------------------------------------------


def test_text_is_cut_into_pieces_spread_over_it() -> None:
    golden = make_golden(
        [(Path("dir/legal.txt"), bytes(range(100))), (Path("code.py"), b"x" * 25)],
        Rules(of_bytes=True, length=6, limit=8),
    )
    assert (golden.vocab, golden.slices) == (256, ("legal", "code"))
    assert [s.tokens[0] for s in golden.sequences[:8]] == [0, 12, 24, 36, 48, 60, 72, 84]
    assert [s.slice for s in golden.sequences[8:]] == ["code"] * 4
    assert {len(s.tokens) for s in golden.sequences} == {6}


def test_lines_of_tokens_name_their_slice() -> None:
    lines = b"\n".join(b'{"slice": "s%d", "tokens": [%d, 9]}' % (n % 2, n) for n in range(8))
    golden = make_golden([(Path("x.jsonl"), lines + b"\n\n")], Rules())
    assert (golden.vocab, golden.slices) == (10, ("s0", "s1"))
    assert [s.tokens[0] for s in golden.sequences] == list(range(8))


@pytest.mark.parametrize(
    ("name", "content", "rules", "sentence"),
    [
        ("a.txt", b"text", Rules(), "moe knows no tokenizer; give --bytes"),
        ("a.txt", b"text", Rules(of_bytes=True), "has 4 bytes; a sequence has 256"),
        ("a.jsonl", b"{", Rules(), "a.jsonl:1 is not JSON"),
        ("a.jsonl", b"\n[]", Rules(), "a.jsonl:2 is .*; it must be an object"),
        ("a.jsonl", b'{"tokens": [1, 2]}', Rules(), "a.jsonl:1.slice is missing"),
        ("a.jsonl", b'{"slice": "a", "tokens": [-1, 2]}', Rules(), "has the token -1"),
        ("a.jsonl", b'{"slice": "a", "tokens": [1, 2]}', Rules(), "there are 1 sequences"),
        ("a.txt", b"text" * 64, Rules(True, 4, vocab=9), "the token 116; it must be from 0 to 8"),
    ],
)
def test_inputs_that_make_no_set(name: str, content: bytes, rules: Rules, sentence: str) -> None:
    with pytest.raises(Refused, match=sentence):
        make_golden([(Path(name), content)], rules)


def test_the_command_writes_a_file_that_is_named_by_its_digest(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = tmp_path / "legal.txt"
    text.write_bytes(b"whereas " * 100)
    out = tmp_path / "out"
    arguments = ["golden", str(out), str(text), "--bytes", "--length", "64"]
    assert main(arguments) == 0
    (path,) = out.iterdir()
    digest = sha256_of_file(path)
    said = capsys.readouterr().out
    assert path.name == f"golden-{digest[:10]}.safetensors"
    assert f"{path}  12 sequences, 768 tokens\nsha256 {digest}\n" in said
    assert main(arguments) == 0
    assert [*out.iterdir()] == [path]
    assert main(["verify", str(path), "--sha256", digest]) == 0
    assert main(["inspect", "-o", "json", str(path)]) == 0
    facts = json.loads(capsys.readouterr().out.partition("ok\n")[2])
    assert (facts["kind"], facts["slices"], facts["tensors"]["offsets"]) == (
        "golden",
        ["legal"],
        [13],
    )
    assert main(["golden", str(out), str(tmp_path / "none.txt")]) == 1
    assert "none.txt cannot be read: No such file" in capsys.readouterr().err
