"""The first part of bench/engine.py: is what is timed right?"""

import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

TOKENS = 1000
MOST_KL = 1e-6  # nats a token, of f32 against transformers


def logits_of(program: pathlib.Path, model: pathlib.Path, tokens: list[int]) -> np.ndarray:
    from safetensors.numpy import load_file

    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "logits.safetensors"
        subprocess.run([program, "score", model, "--logits", out], input=json.dumps(tokens) + "\n", text=True, check=True, capture_output=True)
        return load_file(out)["text.0"].astype(np.float64)


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def divergence(reference: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Mean KL in nats a token, and the share of tokens with the same first choice."""
    p, q = log_softmax(reference), log_softmax(other)
    return float((np.exp(p) * (p - q)).sum(-1).mean()), float((p.argmax(-1) == q.argmax(-1)).mean())


NAMES = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
         "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}  # fmt: skip


def transformers_logits(path: pathlib.Path, tokens: list[int]) -> np.ndarray:
    """Of transformers' Llama with the weights that the `gguf` package dequantises: nothing of ours is in it."""
    import gguf
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    reader = gguf.GGUFReader(path)
    value = {name: field.contents() for name, field in reader.fields.items() if name.startswith("llama.")}
    if any("rope.scal" in name for name in value) or any(t.name == "rope_freqs.weight" for t in reader.tensors):
        raise SystemExit(f"{path}: scaled rotary positions aren't read here")
    heads, kv_heads = value["llama.attention.head_count"], value["llama.attention.head_count_kv"]
    config = LlamaConfig(vocab_size=value["llama.vocab_size"], hidden_size=value["llama.embedding_length"], num_hidden_layers=value["llama.block_count"],
                         intermediate_size=value["llama.feed_forward_length"], num_attention_heads=heads, num_key_value_heads=kv_heads,
                         rms_norm_eps=value["llama.attention.layer_norm_rms_epsilon"], rope_theta=value["llama.rope.freq_base"],
                         max_position_embeddings=value["llama.context_length"], tie_word_embeddings=True, attn_implementation="eager")  # fmt: skip
    weights = {}
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        parts = tensor.name.split(".")
        if parts[0] == "blk":
            name = f"model.layers.{parts[1]}.{NAMES[parts[2]]}.weight"
            if parts[2] in ("attn_q", "attn_k"):  # GGUF keeps the two halves of a rotated pair side by side
                n = heads if parts[2] == "attn_q" else kv_heads
                values = values.reshape(n, values.shape[0] // n // 2, 2, -1).swapaxes(1, 2).reshape(values.shape)
        else:
            name = {"token_embd": "model.embed_tokens.weight", "output_norm": "model.norm.weight"}[parts[0]]
        weights[name] = torch.from_numpy(np.array(values, np.float32))
    model = LlamaForCausalLM(config).eval()
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        sys.exit(f"error: {path} is not a plain Llama: {missing} {unexpected}")
    model.tie_weights()
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].double().numpy()


def measure(models, text: pathlib.Path) -> dict:
    full = models.ours(None)
    line = json.dumps(text.read_text())
    tokens = json.loads(subprocess.run([models.program, "tokenize", full / "tokenizer.json"], input=line, check=True, capture_output=True, text=True).stdout)[:TOKENS]
    f32 = logits_of(models.program, full, tokens)
    report = {}
    for name, reference, other in (
        ("f32 against transformers", transformers_logits(models.published(), tokens), f32),
        ("8 bits against f32", f32, logits_of(models.program, models.ours(8), tokens)),
        ("4 bits against f32", f32, logits_of(models.program, models.ours(4), tokens)),
    ):
        kl, same = divergence(reference, other)
        print(f"{name}: KL {kl:.2e} nats a token, {same:.1%} of {len(tokens)} first choices alike", flush=True)
        report[name] = {"kl": kl, "top1": same}
        if name.startswith("f32") and (kl > MOST_KL or same < 1):
            sys.exit(f"error: {name}: not the same model; nothing else is measured")
    for name, model in (("f32", full), ("8 bits", models.ours(8)), ("4 bits", models.ours(4)), ("peer's 4 bits", models.peer_as_ours())):
        found = models.run([models.program, "perplexity", model, text, "--json"], f"perplexity: {name}")
        report[f"perplexity {name}"] = json.loads(found.splitlines()[-1])["perplexity"]
        print(f"perplexity of {text.name}, {name}: {report[f'perplexity {name}']:.3f}", flush=True)
    report["perplexity_ratio_to_peer"] = report["perplexity 4 bits"] / report["perplexity peer's 4 bits"]
    return report
