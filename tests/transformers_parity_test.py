"""The trainer's model against transformers' Llama and Mixtral: the same weights give the same logits to 1e-4."""

import json
import pathlib
import subprocess

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from programs import TRAIN

SIZES = dict(vocab_size=300, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
             rms_norm_eps=1e-5, tie_word_embeddings=False)


def tessera_tensors(weights: dict[str, torch.Tensor], num_components: int) -> dict[str, torch.Tensor]:
    """Hugging Face's names to those of src/core/tensor_names.cpp."""
    out = {"embedding": weights["model.embed_tokens.weight"], "final_norm": weights["model.norm.weight"], "head": weights["lm_head.weight"]}
    for layer in range(SIZES["num_hidden_layers"]):
        theirs, ours = f"model.layers.{layer}.", f"layers.{layer}."
        out[ours + "attention_norm"] = weights[theirs + "input_layernorm.weight"]
        out[ours + "feed_forward_norm"] = weights[theirs + "post_attention_layernorm.weight"]
        for name, letter in (("query", "q"), ("key", "k"), ("value", "v"), ("output", "o")):
            out[f"{ours}attention.{name}"] = weights[f"{theirs}self_attn.{letter}_proj.weight"]
        if num_components == 0:
            gate, up = weights[theirs + "mlp.gate_proj.weight"], weights[theirs + "mlp.up_proj.weight"]
            out[ours + "feed_forward.gate_up"] = torch.cat([gate, up])
            out[ours + "feed_forward.down"] = weights[theirs + "mlp.down_proj.weight"]
            continue
        out[ours + "router_gate"] = weights[theirs + "mlp.gate.weight"]
        out[ours + "selection_bias"] = torch.zeros(num_components)
        for c in range(num_components):
            gate, up = weights[theirs + "mlp.experts.gate_up_proj"][c].chunk(2)
            out[f"{ours}components.{c}.gate"], out[f"{ours}components.{c}.up"] = gate, up
            out[f"{ours}components.{c}.down"] = weights[theirs + "mlp.experts.down_proj"][c]
    return out


def write_model(folder: pathlib.Path, model: torch.nn.Module, hierarchy: dict, dense_width: int) -> None:
    architecture = {
        "trunk": {"vocab_size": SIZES["vocab_size"], "width": SIZES["hidden_size"], "num_layers": SIZES["num_hidden_layers"],
                  "num_heads": SIZES["num_attention_heads"], "num_kv_heads": SIZES["num_key_value_heads"], "dense_width": dense_width,
                  "context_length": 128, "norm_eps": SIZES["rms_norm_eps"], "rope_theta": model.config.rope_parameters["rope_theta"],
                  "tied_embeddings": False},
        "hierarchy": hierarchy,
        "component_router": {"kind": "gate"},
    }
    num_components = hierarchy["domains"][0]["num_components"] if hierarchy else 0
    tensors = tessera_tensors({k: v.detach().float() for k, v in model.state_dict().items()}, num_components)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"format": "tessera-1", "model": architecture}))
    save_file({k: np.ascontiguousarray(v.numpy()) for k, v in tensors.items()}, folder / "model.safetensors")


def logits_of_both(tmp_path: pathlib.Path, model: torch.nn.Module, hierarchy: dict, dense_width: int = 0):
    folder = tmp_path / "model"
    write_model(folder, model, hierarchy, dense_width)
    tokens = torch.randint(0, SIZES["vocab_size"], (3, 100), generator=torch.Generator().manual_seed(2))
    subprocess.run([TRAIN, "score", folder, "--logits", tmp_path / "logits.safetensors"], check=True, text=True, capture_output=True,
                   input="\n".join(json.dumps(row.tolist()) for row in tokens))
    ours = load_file(tmp_path / "logits.safetensors")
    with torch.no_grad():
        theirs = model(tokens).logits
    return np.stack([ours[f"text.{i}"] for i in range(3)]), theirs.numpy()


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def spread(model: torch.nn.Module) -> torch.nn.Module:
    """Larger weights than the default, so that a wrong detail shows."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3) if parameter.dim() > 1 else parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def test_llama(tmp_path):
    model = spread(LlamaForCausalLM(LlamaConfig(**SIZES, intermediate_size=96)))
    ours, theirs = logits_of_both(tmp_path, model, {}, dense_width=96)
    assert np.abs(theirs).max() > 1
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_mixtral(tmp_path):
    model = spread(MixtralForCausalLM(MixtralConfig(**SIZES, intermediate_size=40, num_local_experts=8, num_experts_per_tok=2, sliding_window=None)))
    hierarchy = {"domains": [{"name": "all", "num_components": 8}], "num_active": 2, "unique_width": 40}
    ours, theirs = logits_of_both(tmp_path, model, hierarchy)
    assert np.abs(theirs).max() > 1
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
