"""An artifact's bytes: there and back, always the same, and refused where anything is off."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from moe_artifacts.artifact import (
    encode,
    read_expert,
    read_gate,
    read_metadata,
    sha256_of,
    sha256_of_file,
)
from moe_artifacts.container import parse
from moe_artifacts.encoding import NUMPY_DTYPES
from moe_artifacts.errors import BadArtifact, Refused, WrongDigest
from moe_artifacts.metadata import ExpertMetadata, GateMetadata, Metadata, from_text, to_text
from tests.artifacts.samples import (
    EXPERT,
    GATE,
    artifact_bytes,
    header_of,
    numbers,
    with_header,
    with_metadata,
    write_artifact,
)
from tests.support.policies import policies

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""How long an example takes says more of the machine's other work than of ours."""


def layers() -> st.SearchStrategy[tuple[int, ...]]:
    return st.sets(st.integers(0, 1023), min_size=1, max_size=4).map(lambda s: tuple(sorted(s)))


def experts() -> st.SearchStrategy[tuple[str, ...]]:
    ids = st.text("az09-", min_size=1, max_size=9)
    ids = ids.filter(lambda text: not text.startswith("-") and not text.endswith("-"))
    return st.lists(ids, min_size=1, max_size=5, unique=True).map(tuple)


@st.composite
def gate_metadata(draw: st.DrawFn) -> GateMetadata:
    ids = draw(experts())
    width, dtype = draw(st.integers(1, 9)), draw(st.sampled_from([*NUMPY_DTYPES]))
    return GateMetadata(draw(layers()), width, ids, draw(policies(ids)), dtype)


def expert_metadata() -> st.SearchStrategy[ExpertMetadata]:
    size = st.integers(1, 9)
    return st.builds(ExpertMetadata, layers(), size, size, st.sampled_from([*NUMPY_DTYPES]))


def some_metadata() -> st.SearchStrategy[Metadata]:
    return st.one_of(expert_metadata(), gate_metadata())


@unhurried
@given(some_metadata())
def test_metadata_come_back_from_their_text(metadata: Metadata) -> None:
    assert from_text(to_text(metadata)) == metadata


@unhurried
@given(some_metadata(), st.integers(0, 5))
def test_an_artifact_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, metadata: Metadata, seed: int
) -> None:
    path = write_artifact(tmp_path_factory.mktemp("a") / "x.safetensors", metadata, seed)
    tensors = numbers(metadata, seed)
    if isinstance(metadata, ExpertMetadata):
        expert = read_expert(path)
        assert expert.metadata == metadata
        seen = {
            f"layers.{layer}.{name}": getattr(arrays, name)
            for layer, arrays in expert.layers.items()
            for name in ("gate_proj", "up_proj", "down_proj")
        }
    else:
        gate = read_gate(path)
        assert gate.metadata == metadata
        seen = {
            f"layers.{layer}.{name}": array
            for layer, arrays in gate.layers.items()
            for name in ("weight", "bias", "selection_bias", "noise_weight")
            if (array := getattr(arrays, name)) is not None
        }
    assert seen.keys() == tensors.keys()
    for name, array in tensors.items():
        assert seen[name].dtype == array.dtype
        assert seen[name].tobytes() == array.tobytes()


@unhurried
@given(some_metadata(), st.integers(0, 5))
def test_the_digest_needs_no_file_and_never_varies(metadata: Metadata, seed: int) -> None:
    tensors = numbers(metadata, seed)
    backwards = dict(reversed(list(tensors.items())))
    digest = hashlib.sha256(artifact_bytes(metadata, seed)).hexdigest()
    assert sha256_of(metadata, tensors.__getitem__) == digest
    assert sha256_of(metadata, backwards.__getitem__) == digest


@pytest.mark.parametrize(
    ("metadata", "digest"),
    [
        pytest.param(
            EXPERT, "56736adc13703e7678bb68e8cbd851b4ab678fcaa028eabb58d8857aff3b95bc", id="expert"
        ),
        pytest.param(
            GATE, "af956bc8014b740d9dc2b90e94b3f43bd4084264739a6032aada55ad69b63ffe", id="gate"
        ),
    ],
)
def test_the_layout_is_that_of_all_artifacts_made_so_far(metadata: Metadata, digest: str) -> None:
    assert sha256_of(metadata, numbers(metadata).__getitem__) == digest


@pytest.mark.parametrize("metadata", [EXPERT, GATE], ids=["expert", "gate"])
def test_the_safetensors_library_reads_what_we_write(tmp_path: Path, metadata: Metadata) -> None:
    path = write_artifact(tmp_path / "x.safetensors", metadata)
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"moeops": to_text(metadata)}
        assert set(file.keys()) == set(metadata.shapes)
        for name, array in numbers(metadata).items():
            tensor = file.get_tensor(name)
            assert tuple(tensor.shape) == array.shape
            assert tensor.float().tolist() == array.astype(np.float32).tolist()


def test_data_begin_where_vector_instructions_like_it() -> None:
    (length,) = struct.unpack("<Q", artifact_bytes(EXPERT)[:8])
    assert (8 + length) % 64 == 0


def test_writing_to_an_array_changes_no_file(tmp_path: Path) -> None:
    path = write_artifact(tmp_path / "x.safetensors", GATE)
    before = sha256_of_file(path)
    read_gate(path).layers[0].weight[:] = 7
    assert sha256_of_file(path) == before


def test_a_digest_is_checked_before_anything_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"not an artifact at all")
    with pytest.raises(WrongDigest, match=rf"sha256 is [0-9a-f]{{64}}; {'0' * 64} was asked for"):
        read_expert(path, "0" * 64)
    good = write_artifact(tmp_path / "y.safetensors")
    assert read_expert(good, sha256_of_file(good)).metadata == EXPERT


def test_encode_refuses_numbers_that_are_not_as_the_metadata_say() -> None:
    wrong = {n: a.astype(np.float32) for n, a in numbers(EXPERT).items()}
    with pytest.raises(BadArtifact, match=r"float32 of shape \[6, 4\]; it must be bfloat16"):
        b"".join(encode(EXPERT, wrong.__getitem__))


@pytest.mark.parametrize(
    ("hidden_size", "layers", "message"),
    [
        pytest.param(8, (0,), "hiddenSize is 4; the mixture's is 8", id="another width"),
        pytest.param(4, (0, 1), r"layers are \[0, 2\]; \[1\] are asked for", id="a layer too many"),
    ],
)
def test_an_expert_says_what_it_cannot_serve(
    hidden_size: int, layers: tuple[int, ...], message: str
) -> None:
    with pytest.raises(BadArtifact, match=message):
        EXPERT.check_serves(hidden_size, layers)
    EXPERT.check_serves(4, (2,))


def test_nothing_of_torch_is_imported() -> None:
    program = (
        "import sys, moe_artifacts.__main__, moe_artifacts.fetch; print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


# -- files that nobody should load -------------------------------------------------------------


def entry(**changed: object) -> Callable[[bytes], bytes]:
    """Change fields of the first tensor in the header."""

    def change(content: bytes) -> bytes:
        header = header_of(content)
        header["layers.0.gate_proj"].update(changed)
        return with_header(content, header)

    return change


def renamed(old: str, new: str) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        header = header_of(content)
        return with_header(content, {new if n == old else n: v for n, v in header.items()})

    return change


def said(**changed: object) -> Callable[[bytes], bytes]:
    return lambda content: with_metadata(content, **changed)


def header(value: object) -> Callable[[bytes], bytes]:
    return lambda content: with_header(content, value)


def without_metadata(content: bytes) -> bytes:
    return with_header(content, header_of(content) | {"__metadata__": {"format": "pt"}})


BAD_FILES: list[Any] = [
    pytest.param(lambda _: b"", "the file has 0 bytes", id="empty"),
    pytest.param(lambda c: c[:7], "the file has 7 bytes", id="no length"),
    pytest.param(
        lambda c: b"\xff" * 8 + c[8:], "header length is 18446744073709551615", id="huge header"
    ),
    pytest.param(
        lambda c: struct.pack("<Q", len(c)) + c[8:], "it must be at most", id="header past the end"
    ),
    pytest.param(
        lambda c: struct.pack("<Q", (4 << 20) + 1) + b" " * (5 << 20),
        "header length is 4194305; it must be at most 4194304",
        id="header larger than an artifact's can be",
    ),
    pytest.param(header(b"{"), "header is not JSON", id="header cut"),
    pytest.param(header(b"[" * 100_000), "header is not JSON", id="header nested too deep"),
    pytest.param(header(b"\xff\xfe{}"), "header is not JSON", id="header not text"),
    pytest.param(header([]), "header is a list; it must be a JSON object", id="header a list"),
    pytest.param(
        header(b'{"x": {}, "x": {}}'), "header names 'x' twice", id="one tensor named twice"
    ),
    pytest.param(header({"x": 3}), "header.x is 3; it must be an object", id="tensor no object"),
    pytest.param(
        header({"__metadata__": {"moeops": 1}}), "whose values are text", id="metadata not text"
    ),
    pytest.param(entry(dtype="PICKLE"), "gate_proj.dtype is 'PICKLE'", id="unknown dtype"),
    pytest.param(entry(shape=[-6, 4]), r"shape is \[-6, 4\]", id="negative shape"),
    pytest.param(entry(shape=[6.0, 4]), r"shape is \[6.0, 4\]", id="shape of floats"),
    pytest.param(entry(shape=[True, 24]), r"shape is \[True, 24\]", id="shape of booleans"),
    pytest.param(entry(shape=[1] * 9), "a list of at most 8 sizes", id="too many dimensions"),
    pytest.param(
        entry(shape=[2**62, 2**62]), "data_offsets is .* bytes apart", id="shape beyond memory"
    ),
    pytest.param(entry(data_offsets=[0]), r"must be \[begin, end\]", id="one offset"),
    pytest.param(entry(data_offsets=[0, 47]), "48 bytes apart", id="too few bytes"),
    pytest.param(
        entry(data_offsets=[48, 96]), "begins at 48; it must begin at 0", id="overlap and hole"
    ),
    pytest.param(lambda c: c[:-1], "the file has 287 bytes of data", id="cut at the end"),
    pytest.param(lambda c: c + b"x", "the file has 289 bytes of data", id="more at the end"),
    pytest.param(without_metadata, "metadata 'moeops' is missing", id="not ours"),
    pytest.param(said(format=2), "moeops.format is 2; this program reads 1", id="later format"),
    pytest.param(said(format=True), "moeops.format is True", id="format no number"),
    pytest.param(said(kind="pickle"), "kind is 'pickle'", id="unknown kind"),
    pytest.param(said(hiddenSize=None), "moeops.hiddenSize is missing", id="no hidden size"),
    pytest.param(said(hiddenSize="4"), "hiddenSize is '4'", id="hidden size as text"),
    pytest.param(said(hiddenSize=0), "hiddenSize is 0; it must be from 1", id="no width"),
    pytest.param(said(hiddenSize=1 << 17), "hiddenSize is 131072", id="too wide"),
    pytest.param(said(intermediateSize=0), "intermediateSize is 0", id="no inner width"),
    pytest.param(said(layers=[]), r"layers is \[\]", id="no layers"),
    pytest.param(said(layers=[2, 0]), r"layers is \[2, 0\].*rising", id="layers falling"),
    pytest.param(said(layers=[0, 0]), r"layers is \[0, 0\]", id="layer twice"),
    pytest.param(said(layers=[0, 1024]), r"layers is \[0, 1024\]", id="layer too high"),
    pytest.param(said(layers=["0"]), r"layers\[0\] is '0'", id="layers as text"),
    pytest.param(said(dtype="Int4"), "dtype is 'Int4'", id="unknown name of a dtype"),
    pytest.param(said(dtype="Float32"), "gate_proj is BF16; dtype says F32", id="another dtype"),
    pytest.param(said(activation="gelu"), "activation is 'gelu'", id="another function"),
    pytest.param(
        said(hiddenSize=3), r"gate_proj has shape \[6, 4\]; the metadata say \[6, 3\]", id="shape"
    ),
    pytest.param(said(layers=[0, 1, 2]), "tensor layers.1.gate_proj is missing", id="missing"),
    pytest.param(said(layers=[0]), "tensor layers.2.* belongs to no layer", id="extra"),
    pytest.param(
        renamed("layers.2.up_proj", "layers.2.bias"), "layers.2.up_proj is missing", id="renamed"
    ),
]


@pytest.mark.parametrize(("change", "message"), BAD_FILES)
def test_a_bad_expert_is_refused_with_what_is_wrong(
    tmp_path: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(change(artifact_bytes(EXPERT)))
    with pytest.raises(BadArtifact, match=message) as caught:
        read_expert(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        pytest.param({"topK": 0}, "topK is 0; it must be 1 or more", id="no choice"),
        pytest.param({"topK": 4}, "topK is 4; there are 3 experts", id="more than experts"),
        pytest.param({"experts": []}, "experts has 0 ids", id="no experts"),
        pytest.param({"experts": ["e0", "e1"]}, r"shape \[3, 4\]; the metadata", id="a row more"),
        pytest.param({"experts": ["e0", "E1", "e2"]}, r"experts\[1\] is 'E1'", id="bad id"),
        pytest.param({"experts": ["e0", "e1", "e0"]}, "is there already", id="expert twice"),
        pytest.param({"experts": ["e"] * 2000}, "experts has 2000 ids", id="too many"),
        pytest.param({"policy": "Magic"}, "policy is 'Magic'", id="unknown policy"),
    ],
)
def test_a_bad_gate_is_refused_with_what_is_wrong(
    tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(with_metadata(artifact_bytes(GATE), **changed))
    with pytest.raises(BadArtifact, match=message):
        read_gate(path)


def test_one_kind_is_not_taken_for_the_other(tmp_path: Path) -> None:
    gate = write_artifact(tmp_path / "gate", GATE)
    expert = write_artifact(tmp_path / "expert", EXPERT)
    with pytest.raises(BadArtifact, match="kind is 'gate'; an expert is wanted"):
        read_expert(gate)
    with pytest.raises(BadArtifact, match="kind is 'expert'; a gate is wanted"):
        read_gate(expert)


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir()], ids=["missing", "folder"])
def test_what_cannot_be_read_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "x"
    make(path)
    for read in (read_metadata, sha256_of_file):
        with pytest.raises(Refused, match=f"{path} cannot be read"):
            read(path)


def test_unknown_fields_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(with_metadata(artifact_bytes(EXPERT), trainedOn="tea leaves"))
    assert read_metadata(path) == EXPERT


@unhurried
@given(st.binary(max_size=200))
def test_random_bytes_never_do_worse_than_be_refused(content: bytes) -> None:
    with pytest.raises(BadArtifact):
        parse(memoryview(content), 1 << 20)


@unhurried
@given(st.data())
def test_a_damaged_artifact_is_read_or_refused_but_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(artifact_bytes(EXPERT))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("d") / f"{os.getpid()}.safetensors"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        expert = read_expert(path)
    except BadArtifact:
        return
    shapes = {f"layers.{n}.up_proj": a.up_proj.shape for n, a in expert.layers.items()}
    assert all(expert.metadata.shapes[name] == shape for name, shape in shapes.items())
