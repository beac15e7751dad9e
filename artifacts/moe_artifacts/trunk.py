"""The identity of a trunk: one digest of all tensors that are neither an expert's nor a gate's.

It is the same for a checkpoint and for the model loaded from it, in any order, and however the
file is cut. The rule: floats of 16 bits are widened to float32, so that a model loaded in float32
from a bfloat16 checkpoint is the same trunk; each tensor becomes the line
`NAME DTYPE 2x3 SHA256-OF-ITS-LITTLE-ENDIAN-BYTES\\n` (DTYPE as in safetensors); the digest is the
sha256 of the lines, sorted. Left out are experts and gates, `…rotary_emb.inv_freq`, which is
computed from the configuration, and an `lm_head.weight` that equals `model.embed_tokens.weight`,
because a checkpoint with tied embeddings does not store it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from moe_artifacts.encoding import ITEM_BYTES, NAMES, NUMPY_DTYPES
from moe_artifacts.errors import BadCheckpoint
from moe_artifacts.names import is_trunk

Tensor = tuple[str, Any, Sequence[int], str]
"""Name, contiguous bytes (anything with the buffer protocol), shape, dtype."""

_PIECE_BYTES = 1 << 23
_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
_DERIVED = "rotary_emb.inv_freq"
_SYNONYMS = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64"}
_SYNONYMS |= {name: code for code, name in NAMES.items()}


def trunk_sha256(
    tensors: Iterable[Tensor], on_bytes: Callable[[int], None] = lambda count: None
) -> str:
    """Return the digest of a trunk, given its tensors by their Hugging Face names.

    Experts and gates among them are skipped, their bytes not looked at (they may be empty). A
    dtype is named as in safetensors (`BF16`), torch (`torch.bfloat16`) or a Mixture (`BFloat16`).
    `on_bytes` is told how many bytes were read. Raises BadCheckpoint where bytes, shape and dtype
    do not fit. From a model in torch::

        trunk_sha256(
            (name, t.detach().cpu().contiguous().view(torch.uint8).numpy(), t.shape, str(t.dtype))
            for name, t in model.state_dict().items() if is_trunk(name)
        )
    """
    lines = {}
    for name, data, shape, dtype in tensors:
        if is_trunk(name) and not name.endswith(_DERIVED):
            lines[name] = _describe(name, data, tuple(shape), dtype, on_bytes)
    if lines.get(_HEAD) == lines.get(_EMBEDDING):
        lines.pop(_HEAD, None)
    text = "".join(sorted(f"{name} {line}\n" for name, line in lines.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def _describe(
    name: str, data: Any, shape: tuple[int, ...], dtype: str, on_bytes: Callable[[int], None]
) -> str:
    short = dtype.removeprefix("torch.")
    code = _SYNONYMS.get(short, short)
    raw = np.frombuffer(data, dtype=np.uint8) if memoryview(data).nbytes else np.empty(0, np.uint8)
    if code not in ITEM_BYTES:
        raise BadCheckpoint(f"{name}: dtype is {dtype!r}; it must be one of {list(ITEM_BYTES)}")
    wanted = int(np.prod(shape, dtype=object)) * ITEM_BYTES[code]
    if raw.nbytes != wanted:
        raise BadCheckpoint(f"{name} has {raw.nbytes} bytes; {code} of {list(shape)} has {wanted}")
    digest = hashlib.sha256()
    widened = code in ("BF16", "F16")
    for start in range(0, raw.nbytes, _PIECE_BYTES):
        piece = raw[start : start + _PIECE_BYTES]
        digest.update(
            piece.view(NUMPY_DTYPES[NAMES[code]]).astype("<f4").data if widened else piece.data
        )
        on_bytes(piece.nbytes)
    sizes = "x".join(map(str, shape))
    return f"{'F32' if widened else code} {sizes} {digest.hexdigest()}"
