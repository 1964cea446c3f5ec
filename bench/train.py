#!/usr/bin/env python3
"""Training speed, ours against Hugging Face transformers' Mixtral with the same weights, batch, precision and threads.

Every side is a process of its own that waits for its turn, so that nothing runs beside what is timed: eager, compiled and
ours take turns, and the medians are compared. A step is forward, backward, clipping and AdamW. The last line is JSON.

Example: ./tessera bench train --turns 5
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import arguments

ROOT = pathlib.Path(__file__).resolve().parent.parent
TRAINER = ROOT / "build/release/tessera-train"
SHAPES = {"192": dict(width=192, heads=6, kv_heads=2, expert_width=96), "512": dict(width=512, heads=8, kv_heads=4, expert_width=256)}
LAYERS, EXPERTS, ACTIVE, VOCAB, ROWS, LENGTH = 4, 32, 2, 4096, 8, 512


def cpu_flags() -> set[str]:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return set(line.split(":")[1].split())
    return set()


def cpu_name() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return "unknown"


# ---- the peer, run as `train.py --peer ...` -----------------------------------------------------------------------------


def mixtral(shape: dict, backend: str):
    import torch
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    config = MixtralConfig(vocab_size=VOCAB, hidden_size=shape["width"], num_hidden_layers=LAYERS, num_attention_heads=shape["heads"],
                           num_key_value_heads=shape["kv_heads"], intermediate_size=shape["expert_width"], num_local_experts=EXPERTS,
                           num_experts_per_tok=ACTIVE, max_position_embeddings=LENGTH, rms_norm_eps=1e-5, sliding_window=None,
                           tie_word_embeddings=True, rope_theta=10000.0)
    config._experts_implementation = backend
    return MixtralForCausalLM(config)


def peer(args: argparse.Namespace) -> None:
    import time

    import torch

    torch.set_num_threads(args.threads)
    model = mixtral(SHAPES[args.shape], args.backend)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    tokens = torch.tensor([int(t) for t in pathlib.Path(args.tokens).read_text().split()]).view(ROWS, LENGTH)
    run = torch.compile(model) if args.compile else model
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.precision == "bf16")
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() == "peak":
            best = 0.0
            for n in (256, 512, 1024, 2048, 4096):
                a = torch.randn(n, n, dtype=torch.bfloat16 if args.precision == "bf16" else torch.float32)
                for _ in range(8 if n < 2048 else 2):
                    begin = time.perf_counter()
                    a @ a
                    best = max(best, 2e-9 * n**3 / (time.perf_counter() - begin))
            print(json.dumps({"gflops": best}), flush=True)
            continue
        steps, first_loss, optimizer_s = int(line.split()[1]), 0.0, 0.0
        begin = time.perf_counter()
        for step in range(steps):
            with autocast:
                loss = run(input_ids=tokens, labels=tokens, use_cache=False).loss
            if step == 0:
                first_loss = loss.item()
            loss.backward()
            optimizer_begin = time.perf_counter()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            optimizer_s += time.perf_counter() - optimizer_begin
        seconds = time.perf_counter() - begin
        peak = next(int(x.split()[1]) * 1024 for x in pathlib.Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM:"))
        print(json.dumps({"seconds": seconds / steps, "optimizer_seconds": optimizer_s / steps, "loss": first_loss, "peak_rss_bytes": peak}),
              flush=True)


# ---- models -------------------------------------------------------------------------------------------------------------


def write_flat(folder: pathlib.Path, shape: dict) -> None:
    """The peer's weights as a Tessera model: one domain, no banks, a linear gate."""
    published = folder.with_name(folder.name + "-peer")
    mixtral(shape, "eager").save_pretrained(published)
    subprocess.run([ROOT / "build/release/tessera", "import", published, folder], check=True, stdout=subprocess.DEVNULL)


def architecture(shape: dict, hierarchy: dict, router: str) -> dict:
    out = {"trunk": {"vocab_size": VOCAB, "width": shape["width"], "num_layers": LAYERS, "num_heads": shape["heads"],
                     "num_kv_heads": shape["kv_heads"], "context_length": LENGTH, "norm_eps": 1e-5, "rope_theta": 10000.0, "tied_embeddings": True},
           "hierarchy": hierarchy, "component_router": {"kind": router}}
    if router == "trunk":
        # As configs/route/progressive-trunk-patches.json has it: of a trunk of 192 24 wide, patches of 4 tokens.
        out["domain_router"] = {"kind": "encoder", "width": shape["width"] // 8, "num_layers": 1, "num_heads": 1, "patch_tokens": 4}
        out["trunk"] |= {"num_dense_layers": 1, "dense_width": hierarchy["num_active"] * (hierarchy["base_width"] + hierarchy["unique_width"])}
    return out


def write_random(folder: pathlib.Path, model: dict) -> None:
    """Fresh weights of any architecture, made by the trainer itself."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"format": "tessera-1", "model": model}))
    subprocess.run([TRAINER, "bench-train-worker", folder, "-", "--write-random"], check=True, stdout=subprocess.DEVNULL)


def active_parameters(model: dict, work: pathlib.Path) -> int:
    config = work / "estimate.json"
    config.write_text(json.dumps({"name": "estimate", "model": model}))
    answer = subprocess.run([ROOT / "build/release/tessera", "estimate", config, "--json"], check=True, capture_output=True, text=True)
    return json.loads(answer.stdout.splitlines()[-1])["active_parameters"]


def flat_of(shape: dict, experts: int, width: int | None = None) -> dict:
    hierarchy = {"domains": [{"name": "all", "num_components": experts}], "num_active": ACTIVE, "unique_width": width or shape["expert_width"]}
    return architecture(shape, hierarchy, "gate")


def mhc_of(shape: dict, width: int) -> dict:
    """A dense first layer, level 2's heads on it; 16 general components and four domains of four, half of their width, rounded up to whole vectors of 16, shared; level 1."""
    shared = (width // 2 + 15) // 16 * 16
    domains = [{"name": "general", "num_components": 16, "always": True}] + [{"name": n, "num_components": 4} for n in ("code", "mathematics", "science", "prose")]
    return architecture(shape, {"domains": domains, "num_active": ACTIVE, "num_banks": 8, "base_width": shared, "unique_width": width - shared}, "trunk")


def as_active(shape: dict, of_width, work: pathlib.Path) -> dict:
    """The widest of these models with no more active parameters, routers included, than the flat MoE of 32."""
    target = active_parameters(flat_of(shape, EXPERTS), work)
    for width in range(2 * shape["expert_width"], 0, -4):
        model = of_width(width)
        if active_parameters(model, work) <= target:
            return model
    sys.exit("error: the routers alone have more active parameters than the flat MoE")


def flops_per_step(shape: dict) -> float:
    """Of the flat MoE, three products' worth forward and backward; attention causal; nothing for recomputation."""
    d, head_dim = shape["width"], shape["width"] // shape["heads"]
    projections = 2 * d * d + 2 * d * head_dim * shape["kv_heads"]
    attention = d * LENGTH  # two products over half of the keys: 2 * d * length / 2
    weights = LAYERS * (projections + attention + EXPERTS * d + ACTIVE * 3 * d * shape["expert_width"]) + VOCAB * d
    return 6.0 * weights * ROWS * LENGTH


# ---- turns --------------------------------------------------------------------------------------------------------------


class Side:
    """A process that does steps when told to."""

    def __init__(self, command: list, **environment: str):
        self.process = subprocess.Popen([str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=os.environ | environment)
        self.results: list[dict] = []
        self.alive = self.process.stdout.readline().strip() == "ready"

    def ask(self, line: str) -> dict | None:
        if not self.alive:
            return None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer.startswith("{"):
            self.alive = False
            return None
        return json.loads(answer)

    def turn(self, steps: int) -> None:
        answer = self.ask(f"steps {steps}")
        if answer:
            self.results.append(answer)

    def median(self, key: str = "seconds") -> float | None:
        return statistics.median(r[key] for r in self.results) if self.alive and self.results else None

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def take_turns(sides: dict[str, Side], turns: int, steps: int) -> dict[str, float]:
    for name, side in sides.items():  # warm-up: allocation, compilation; its first loss is that of the given weights
        side.turn(1)
        if not side.alive and name != "compiled":  # that one may be beyond the compiler
            sys.exit(f"error: side '{name}' does not run; what it said is above" + ("\nhint:  is there such a --backend?" if name == "eager" else ""))
    losses = {name: side.results[0]["loss"] for name, side in sides.items() if side.results}
    for side in sides.values():
        side.first_loss = side.results[0]["loss"] if side.results else None
        side.results.clear()
    for _ in range(turns):
        for side in sides.values():
            side.turn(steps)
    return losses


def tokens_per_s(side: Side) -> float | None:
    seconds = side.median()
    return None if seconds is None else ROWS * LENGTH / seconds


def measure(shape_name: str, precision: str, args: argparse.Namespace, work: pathlib.Path) -> dict:
    shape, tokens = SHAPES[shape_name], work / "tokens.txt"
    flat, ours_mhc = work / f"flat-{shape_name}-{precision}", work / f"mhc-{shape_name}-{precision}"
    write_flat(flat, shape)
    model = as_active(shape, lambda width: mhc_of(shape, width), work)
    write_random(ours_mhc, model)
    common = ["--precision", precision, "--threads", args.threads]
    python = [sys.executable, __file__, "--peer", "--shape", shape_name, "--backend", args.backend, "--tokens", tokens, *common]
    worker = [TRAINER, "bench-train-worker"]
    sides = {"eager": Side(python), "ours": Side([*worker, flat, tokens, *common]), "mhc": Side([*worker, ours_mhc, tokens, *common])}
    if not args.no_compile:
        sides["compiled"] = Side([*python, "--compile"])
    losses = take_turns(sides, args.turns, args.steps)
    # Under bf16 the two round at other places, and three digits are what is left.
    if abs(losses["ours"] - losses["eager"]) > (1e-4 if precision == "f32" else 2e-2):
        sys.exit(f"error: first loss {losses['ours']:.6f} is not the peer's {losses['eager']:.6f}: not the same computation")
    peak = sides["ours"].ask("peak")
    peak_ours, peak_precision, peak_theirs = peak["gflops"], peak["precision"], sides["eager"].ask("peak")["gflops"]
    rates = {name: tokens_per_s(side) for name, side in sides.items()}
    best_name = max((n for n in ("eager", "compiled") if rates.get(n)), key=lambda n: rates[n])
    gflops = flops_per_step(shape) * 1e-9 / (ROWS * LENGTH)
    memory = {name: side.median("peak_rss_bytes") for name, side in sides.items()}
    print(f"\n{precision} D={shape_name}: first loss ours {losses['ours']:.6f}, peer's {losses['eager']:.6f}")
    for name, rate in rates.items():
        if rate:
            print(f"  {name:9} {rate:8.0f} tokens/s  {rate * gflops / peak_ours:6.1%} of {peak_ours:.0f} GFLOPS in {peak_precision}  peak memory {memory[name] / 2**20:6.0f} MiB")
        else:
            print(f"  {name:9} does not run")
    h, actives = model["hierarchy"], [active_parameters(m, work) for m in (flat_of(shape, EXPERTS), model)]
    print(f"  active parameters: flat {actives[0]:,}, mhc {actives[1]:,} (Fb {h['base_width']}, Fu {h['unique_width']})")
    print(f"  peer's own GEMM peak {peak_theirs:.0f} GFLOPS; its best is {best_name}, {rates[best_name] * gflops / peak_theirs:.1%} of it")
    profiles = {name: sides[name].results[-1] for name in ("ours", "mhc")}
    print(f"  where a step goes, ms:     {'flat':>9}{'mhc':>9}")
    parts = {n: [p["parts"].get(n, 0) for p in profiles.values()] for n in profiles["ours"]["parts"] | profiles["mhc"]["parts"]}
    parts["the rest"] = [p["seconds"] - sum(p["parts"].values()) for p in profiles.values()]
    parts["all"] = [p["seconds"] for p in profiles.values()]
    for name, seconds in sorted(parts.items(), key=lambda item: -item[1][0]):
        print(f"    {name:23}" + "".join(f"{1e3 * s:9.1f}" for s in seconds))
    for side in sides.values():
        side.close()
    return {"ours_tokens_per_s": rates["ours"], "eager_tokens_per_s": rates["eager"], "compiled_tokens_per_s": rates.get("compiled"),
            "ratio": rates["ours"] / rates[best_name], "gemm_peak_share": rates["ours"] * gflops / peak_ours,
            "memory_ratio": memory["ours"] / memory[best_name], "mhc_to_flat": rates["mhc"] / rates["ours"],
            "gemm_peak_gflops": peak_ours, "peer_gemm_peak_gflops": peak_theirs, "first_loss": losses["ours"], "peer_first_loss": losses["eager"],
            "gemm_peak_precision": peak_precision, "step_ms": {name: {k: 1e3 * v for k, v in p["parts"].items()} for name, p in profiles.items()}}


def measure_components(args: argparse.Namespace, work: pathlib.Path) -> dict:
    """8 to 256 components at equal active parameters, the gate's included: what the number itself costs."""
    sides, shape, widths = {}, SHAPES["192"], {}
    for n in (8, 32, 128, 256):
        model = as_active(shape, lambda width: flat_of(shape, n, width), work)
        widths[n] = model["hierarchy"]["unique_width"]
        write_random(work / f"components-{n}", model)
        sides[n] = Side([TRAINER, "bench-train-worker", work / f"components-{n}", work / "tokens.txt", "--threads", args.threads])
    take_turns(sides, args.turns, args.steps)
    out = {}
    print("\ncomponents, D=192, equal active parameters:")
    for n, side in sides.items():
        whole, optimizer = side.median(), side.median("optimizer_seconds")
        rate, rate_without = ROWS * LENGTH / whole, ROWS * LENGTH / (whole - optimizer)
        out[str(n)] = {"width": widths[n], "tokens_per_s": rate, "tokens_per_s_without_optimizer": rate_without}
        few = out["8"]
        print(f"  {n:4} of width {widths[n]:3} {rate:8.0f} tokens/s ({rate / few['tokens_per_s'] - 1:+.0%}), "
              f"without the optimizer {rate_without:8.0f} ({rate_without / few['tokens_per_s_without_optimizer'] - 1:+.0%})")
        side.close()
    return out


def main() -> None:
    parser = arguments.Parser(__doc__)
    parser.add_argument("--turns", type=arguments.count, default=5)
    parser.add_argument("--steps", type=arguments.count, default=2, help="steps a turn")
    parser.add_argument("--threads", type=arguments.count, default=os.cpu_count())
    parser.add_argument("--shapes", type=arguments.some_of(*SHAPES), default=list(SHAPES), help=f"what is measured, of {','.join(SHAPES)}")
    parser.add_argument("--backend", default="grouped_mm", help="transformers' expert backend")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--no-components", action="store_true", help="leave out the sweep over the number of components")
    parser.add_argument("--json", action="store_true", help="(the last line is JSON anyway)")
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--shape", help=argparse.SUPPRESS)
    parser.add_argument("--tokens", help=argparse.SUPPRESS)
    parser.add_argument("--compile", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="f32", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        return peer(args)
    precisions = ["f32"] + (["bf16"] if cpu_flags() & {"avx512_bf16", "amx_bf16"} else [])
    report: dict = {"f32": {}, "bf16": None}
    with tempfile.TemporaryDirectory() as temporary:
        work = pathlib.Path(temporary)
        import random

        generator = random.Random(1)
        (work / "tokens.txt").write_text(" ".join(str(generator.randrange(VOCAB)) for _ in range(ROWS * LENGTH)))
        for precision in precisions:
            report[precision] = {shape: measure(shape, precision, args, work) for shape in args.shapes}
        if report["bf16"] is None:
            print("\nbf16: this CPU has neither AMX nor AVX-512 BF16; not measured")
        if not args.no_components:
            report["by_components"] = measure_components(args, work)
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    report |= {"threads": args.threads, "cpu": cpu_name(), "commit": commit}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
