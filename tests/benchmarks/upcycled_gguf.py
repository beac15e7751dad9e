"""Writes the upcycled model as a GGUF that llama.cpp reads, with the same weights in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import torch

_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate": "ffn_gate_inp",
}
_VOCABULARY = "tokenizer."


def write_gguf(model: Any, source: Path, out: Path) -> Path:
    """Write a MixtralForCausalLM; the vocabulary is that of the GGUF `source`."""
    writer, config = gguf.GGUFWriter(out, "llama"), model.config
    writer.add_name("SmolLM2-135M upcycled")
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_expert_count(config.num_local_experts)
    writer.add_expert_used_count(config.num_experts_per_tok)
    for field in gguf.GGUFReader(source).fields.values():
        if field.name.startswith(_VOCABULARY):
            kind = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=kind)
    for name, tensor in _tensors(model):
        _add(writer, name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def _tensors(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Give all weights by llama.cpp's names."""
    config, inner = model.config, model.model
    yield "token_embd.weight", inner.embed_tokens.weight
    yield "output_norm.weight", inner.norm.weight
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for number, layer in enumerate(inner.layers):
        for theirs, own in _NAMES.items():
            weight = layer.get_submodule(theirs).weight
            turned = _turned(weight, heads[own]) if own in heads else weight
            yield f"blk.{number}.{own}.weight", turned
        experts = layer.mlp.experts
        gate, up = experts.gate_up_proj.chunk(2, dim=1)  # (E, I, H) each
        yield f"blk.{number}.ffn_gate_exps.weight", gate
        yield f"blk.{number}.ffn_up_exps.weight", up
        yield f"blk.{number}.ffn_down_exps.weight", experts.down_proj


def _turned(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Return a projection with the two halves of each head, which rotate together, in turns."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def _add(writer: Any, name: str, tensor: torch.Tensor) -> None:
    """Add a tensor; what is small is float32, as llama.cpp wants norms and gates."""
    if tensor.ndim == 1 or "gate_inp" in name:
        writer.add_tensor(name, tensor.detach().float().numpy())
        return
    words = tensor.detach().to(torch.bfloat16).contiguous().view(torch.uint8).numpy()
    writer.add_tensor(name, words, raw_dtype=gguf.GGMLQuantizationType.BF16)
