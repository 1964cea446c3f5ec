"""The models of bench/engine.py, made once and kept under build/bench-engine."""

import json
import pathlib
import shutil
import subprocess
import sys

MOE = dict(width=1024, layers=22, heads=16, kv_heads=4, experts=8, active=2, expert_width=3584)


def costs(model: pathlib.Path) -> dict:
    """What one token reads and multiplies, by the sizes of the file's tensors."""
    config = json.loads((model / "config.json").read_text())["model"]
    with open(model / "model.safetensors", "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    hierarchy = config.get("hierarchy", {})
    components = sum(d["num_components"] for d in hierarchy.get("domains", []))
    bits = json.loads((model / "config.json").read_text()).get("quantised", {}).get("bits", 32)
    read = macs = 0.0
    for name, tensor in header.items():
        if name == "__metadata__" or ".pad" in name or name.startswith("pad"):
            continue
        share = hierarchy["num_active"] / components if ".components." in name else 1.0
        nbytes = tensor["data_offsets"][1] - tensor["data_offsets"][0]
        is_head = name in ("embedding", "head")
        weights = nbytes / (34 / 32 if is_head or bits == 8 else 18 / 32) if tensor["dtype"] == "U8" else nbytes / 4
        read += share * nbytes
        macs += 0 if is_head else share * weights  # of a prompt only the last token's logits are wanted
    return {"bytes_per_token": read, "macs_per_token": macs}


class Models:
    def __init__(self, program: pathlib.Path, root: pathlib.Path):
        self.program, self.root, self.folder = program, root, root / "build" / "bench-engine"
        self.folder.mkdir(parents=True, exist_ok=True)

    def run(self, command: list, what: str) -> str:
        print(what, file=sys.stderr, flush=True)
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"error: {what} failed:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
        return done.stdout.strip()

    def made(self, name: str, *command) -> pathlib.Path:
        """The folder or file of that name, made by a command whose '@' stands for its path."""
        path, beside = self.folder / name, self.folder / f"{name}.making"
        if not path.exists():
            shutil.rmtree(beside, ignore_errors=True)
            beside.unlink(missing_ok=True)
            self.run([beside if c == "@" else c for c in command], f"making {path}")
            beside.rename(path)
        return path

    def peer_programs(self) -> pathlib.Path:
        return pathlib.Path(self.run([sys.executable, self.root / "tools/peers/llama_cpp.py", "--out", self.root / "build/peers"], "llama.cpp"))

    def published(self) -> pathlib.Path:
        cache = self.root / "data/cache"
        return pathlib.Path(self.run([sys.executable, self.root / "tools/get.py", "smollm2", "--cache", cache], "SmolLM2-135M-Instruct"))

    def ours(self, bits: int | None) -> pathlib.Path:
        full = self.made("smollm2", self.program, "import", self.published(), "@")
        return full if bits is None else self.made(f"smollm2-q{bits}", self.program, "quantize", full, "@", "--bits", bits)

    def peer(self, bits: int) -> pathlib.Path:
        quantize = self.peer_programs() / "llama-quantize"
        full = self.made("smollm2-f32.gguf", quantize, "--allow-requantize", self.published(), "@", "F32")
        return self.made(f"smollm2-q{bits}_0.gguf", quantize, full, "@", f"Q{bits}_0")

    def peer_as_ours(self) -> pathlib.Path:
        """The weights of the peer's 4 bits, run in f32 by us: its format's quality by the same measure."""
        return self.made("smollm2-peer-q4", self.program, "import", self.peer(4), "@")

    def moe(self) -> tuple[pathlib.Path, pathlib.Path]:
        peer = self.made("moe-q4_0.gguf", sys.executable, __file__, self.published(), "@")
        full = self.folder / "moe-f16"
        ours = self.folder / "moe-q4"
        if not ours.exists():
            self.made(full.name, self.program, "import", peer, "@", "--dtype", "F16")
            self.made(ours.name, self.program, "quantize", full, "@", "--bits", 4)
            shutil.rmtree(full)
        return ours, peer

    def mhc_pair(self) -> tuple[pathlib.Path, pathlib.Path]:
        """Random weights at 4 bits: 32 components a layer of which 2. The mHC is configs/compare/mhc-trunk's kind (a dense first layer, level 2 on what
        leaves it, level 1 on patches), as wide as equal active parameters allow."""
        trunk = {"vocab_size": 16384, "width": 768, "num_layers": 8, "num_heads": 12, "num_kv_heads": 4, "context_length": 2048, "tied_embeddings": True}
        flat = {"trunk": trunk, "hierarchy": {"domains": [{"name": "all", "num_components": 32}], "num_active": 2, "unique_width": 1536},
                "component_router": {"kind": "gate"}}  # fmt: skip
        domains = [{"name": "general", "num_components": 16, "always": True}]
        domains += [{"name": n, "num_components": 4} for n in ("code", "mathematics", "science", "prose")]
        level1 = {"kind": "encoder", "width": 96, "num_layers": 1, "num_heads": 3, "patch_tokens": 4, "own_embedding": True}
        target = self.active_parameters(flat)
        for half in range(768, 0, -16):
            mhc = {"trunk": trunk | {"num_dense_layers": 1, "dense_width": 2 * 2 * half},
                   "hierarchy": {"domains": domains, "num_active": 2, "num_banks": 8, "base_width": half, "unique_width": half},
                   "component_router": {"kind": "trunk"}, "domain_router": level1}  # fmt: skip
            if self.active_parameters(mhc) <= target:
                break
        return self.random_model("random-flat", flat), self.random_model("random-mhc", mhc)

    def active_parameters(self, model: dict) -> int:
        config = self.folder / "estimate.json"
        config.write_text(json.dumps({"name": "estimate", "model": model}))
        return json.loads(self.run([self.program, "estimate", config, "--json"], "sizes").splitlines()[-1])["active_parameters"]

    def random_model(self, name: str, model: dict) -> pathlib.Path:
        path = self.folder / name
        config = json.dumps({"format": "tessera-1", "model": model, "quantised": {"bits": 4, "group": 32}})
        if not (path / "model.safetensors").exists() or (path / "config.json").read_text() != config:
            path.mkdir(exist_ok=True)
            (path / "config.json").write_text(config)
            self.run([self.program, "bench-engine-worker", path, "--write-random"], f"making {path}")
        return path


def write_moe(published: pathlib.Path, out: pathlib.Path) -> None:
    """A flat MoE of Mixtral's shape in Q4_0 with random weights; vocabulary and tokenizer are those of `published`."""
    import gguf
    import numpy as np

    reader = gguf.GGUFReader(published)
    writer = gguf.GGUFWriter(out, "llama")
    for field in reader.fields.values():
        if field.name.startswith("tokenizer."):
            kind = field.types[0]
            writer.add_key_value(field.name, field.contents(), kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    vocabulary = len(reader.fields["tokenizer.ggml.tokens"].data)
    d, f, head_dim = MOE["width"], MOE["expert_width"], MOE["width"] // MOE["heads"]
    writer.add_context_length(2048)
    writer.add_embedding_length(d)
    writer.add_block_count(MOE["layers"])
    writer.add_feed_forward_length(f)
    writer.add_head_count(MOE["heads"])
    writer.add_head_count_kv(MOE["kv_heads"])
    writer.add_rope_dimension_count(head_dim)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(vocabulary)
    writer.add_expert_count(MOE["experts"])
    writer.add_expert_used_count(MOE["active"])
    rng = np.random.default_rng(1)

    def matrix(name: str, *shape: int, q8: bool = False) -> None:
        blocks = np.empty((*shape[:-1], shape[-1] // 32, 34 if q8 else 18), np.uint8)
        blocks[...] = rng.integers(0, 256, blocks.shape, np.uint8)
        spread = 73.0 if q8 else 4.6  # standard deviation of the stored numbers
        scale = np.float16(1 / 64 * round(64 * 2**12 / (spread * shape[-1] ** 0.5)) / 2**12)  # few bits: F16 holds the products
        blocks[..., :2] = np.frombuffer(scale.tobytes(), np.uint8)
        kind = gguf.GGMLQuantizationType.Q8_0 if q8 else gguf.GGMLQuantizationType.Q4_0
        writer.add_tensor(name, blocks.reshape(*shape[:-1], -1), raw_dtype=kind)

    matrix("token_embd.weight", vocabulary, d, q8=True)
    writer.add_tensor("output_norm.weight", np.ones(d, np.float32))
    for layer in range(MOE["layers"]):
        prefix = f"blk.{layer}."
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{prefix}{norm}.weight", np.ones(d, np.float32))
        for name, outputs in (("attn_q", d), ("attn_k", MOE["kv_heads"] * head_dim), ("attn_v", MOE["kv_heads"] * head_dim), ("attn_output", d)):
            matrix(f"{prefix}{name}.weight", outputs, d)
        writer.add_tensor(f"{prefix}ffn_gate_inp.weight", rng.normal(0, d**-0.5, (MOE["experts"], d)).astype(np.float32))
        for name, shape in (("gate", (f, d)), ("up", (f, d)), ("down", (d, f))):
            matrix(f"{prefix}ffn_{name}_exps.weight", MOE["experts"], *shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    write_moe(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
