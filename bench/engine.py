#!/usr/bin/env python3
"""The engine against llama.cpp: the same weights, formats of the same size, the same number of threads, in turns.

First what must be right (logits against transformers, what 8 and 4 bits cost), then the speed of SmolLM2-135M and of a
flat MoE of Mixtral's shape with random weights: prefill of 512 tokens, decode of 128, 8 texts at once, and the time from
the start of the program to its first token. Last our mHC against our own flat MoE. The last line is JSON.

Example: ./tessera bench engine --turns 3
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

import arguments
import engine_models
import engine_quality

ROOT = pathlib.Path(__file__).resolve().parent.parent
PREFILL, DECODE, TEXTS, TEXT_PROMPT, TEXT_TOKENS = 512, 128, 8, 128, 64
PROMPT = "Explain in one paragraph why the sky is blue, and why a sunset is red."
PARTS = ("quality", "smollm2", "moe", "mhc")
MEASURES = ("prefill512", "decode128", "batch8")  # tokens/s; beside them first_token, in seconds


class Ours:
    """A worker process that runs what it is told to."""

    def __init__(self, program: pathlib.Path, model: pathlib.Path, threads: int):
        self.program, self.model, self.threads = program, model, threads
        self.process = subprocess.Popen([program, "bench-engine-worker", model, "--threads", str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline().strip() != "ready":
            sys.exit(f"error: {program} does not run {model}")
        self.results = []

    def ask(self, line: str) -> dict:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def turn(self) -> None:
        self.ask(f"run 1 {PREFILL} 1")  # warm, as llama-bench warms up
        self.results.append({
            "prefill512": PREFILL / self.ask(f"run 1 {PREFILL} 0")["prefill_seconds"],
            "decode128": DECODE / self.ask(f"run 1 0 {DECODE}")["decode_seconds"],
            "batch8": TEXTS * TEXT_TOKENS / self.ask(f"run {TEXTS} {TEXT_PROMPT} {TEXT_TOKENS}")["decode_seconds"],
        })  # fmt: skip

    def first_token(self) -> float:
        return seconds_of([self.program, "generate", self.model, "-p", PROMPT, "-n", 1, "--temperature", 0, "--threads", self.threads])

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


class Peer:
    def __init__(self, programs: pathlib.Path, model: pathlib.Path, threads: int):
        self.programs, self.model, self.threads = programs, model, threads
        self.results = []

    def run(self, program: str, *options) -> list[dict]:
        command = [self.programs / program, "-m", self.model, "-t", self.threads, *options]
        return [json.loads(line) for line in output_of(command).splitlines() if line.startswith("{")]

    def turn(self) -> None:
        prefill, decode = self.run("llama-bench", "-p", PREFILL, "-n", DECODE, "-r", 1, "-o", "jsonl")
        (batch,) = self.run("llama-batched-bench", "-c", TEXTS * (TEXT_PROMPT + TEXT_TOKENS), "-b", 2048, "-npp", TEXT_PROMPT, "-ntg", TEXT_TOKENS,
                            "-npl", TEXTS, "--output-format", "jsonl")  # fmt: skip
        self.results.append({"prefill512": prefill["avg_ts"], "decode128": decode["avg_ts"], "batch8": batch["speed_tg"]})

    def first_token(self) -> float:
        command = [self.programs / "llama-completion", "-m", self.model, "-t", self.threads, "-c", 512, "-p", PROMPT, "-n", 1, "--temp", 0, "-no-cnv", "--no-warmup"]
        return seconds_of(command)


def output_of(command: list) -> str:
    done = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"error: {' '.join(map(str, command))} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def seconds_of(command: list) -> float:
    begin = time.perf_counter()
    output_of(command)
    return time.perf_counter() - begin


def medians(side) -> dict:
    return {key: statistics.median(r[key] for r in side.results) for key in side.results[0]}


def compare(name: str, ours: Ours, peer: Peer, turns: int) -> dict:
    """Medians of both and their ratios, ours to the peer's."""
    measured = []
    for _ in range(turns):
        measured.append(ours.ask("limits"))
        for side in (ours, peer):
            side.turn()
            side.results[-1]["first_token"] = side.first_token()
    ours.close()
    a, b = medians(ours), medians(peer)
    limits = {key: statistics.median(m[key] for m in measured) for key in measured[0]}
    model = engine_models.costs(ours.model)
    limits["bandwidth_share"] = a["decode128"] * model["bytes_per_token"] / limits["bytes_per_s"]
    macs_per_s = a["prefill512"] * model["macs_per_token"]
    # Activations are int8 for 4-bit weights, 16 bits for 8-bit ones: there the int8 peak is out of reach.
    limits["int8_peak_share"], limits["f32_peak_share"] = macs_per_s / limits["int8_macs_per_s"], macs_per_s / limits["f32_macs_per_s"]
    print(f"\n{name}: ours {ours.model.name} ({size(ours.model / 'model.safetensors')}), peer {peer.model.name} ({size(peer.model)})")
    for key in (*MEASURES, "first_token"):
        unit = "s" if key == "first_token" else "tokens/s"
        print(f"  {key:12} ours {a[key]:9.3f}  peer {b[key]:9.3f} {unit:8}  ratio {a[key] / b[key]:.2f}")
    print(f"  decode reads {limits['bandwidth_share']:.0%} of the {limits['bytes_per_s'] / 1e9:.1f} GB/s that this machine reads of a buffer so large;")
    print(f"  prefill does {limits['int8_peak_share']:.0%} of the {limits['int8_macs_per_s'] / 1e9:.0f} G int8 multiply-adds/s of its registers"
          f" ({limits['f32_peak_share']:.0%} of f32's {limits['f32_macs_per_s'] / 1e9:.0f} G)", flush=True)  # fmt: skip
    return {f"{key}_ratio": a[key] / b[key] for key in a} | {"ours": a, "peer": b} | limits


def size(path: pathlib.Path) -> str:
    return f"{path.stat().st_size / 1e6:.0f} MB"


def compare_mhc(program: pathlib.Path, flat: pathlib.Path, mhc: pathlib.Path, threads: int, turns: int) -> dict:
    sides = {name: Ours(program, path, threads) for name, path in (("flat", flat), ("mhc", mhc))}
    for _ in range(turns):
        for side in sides.values():
            side.turn()
    a, b = medians(sides["mhc"]), medians(sides["flat"])
    print("\nmHC against our own flat MoE, equal active parameters:")
    for key in MEASURES:
        print(f"  {key:12} mhc {a[key]:9.1f}  flat {b[key]:9.1f} tokens/s  ratio {a[key] / b[key]:.2f}", flush=True)
    for side in sides.values():
        side.close()
    return {f"{key}_ratio": a[key] / b[key] for key in MEASURES} | {"mhc": a, "flat": b}


def cpu_name() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return "unknown"


def main() -> None:
    parser = arguments.Parser(__doc__)
    parser.add_argument("--turns", type=arguments.count, default=3)
    parser.add_argument("--threads", type=arguments.count, default=2)
    parser.add_argument("--parts", type=arguments.some_of(*PARTS), default=list(PARTS), help=f"what is measured, of {','.join(PARTS)}")
    parser.add_argument("--text", type=arguments.file, default=ROOT / "ARCHITECTURE.md", help="what perplexity is measured on")
    parser.add_argument("--json", action="store_true", help="(the last line is JSON anyway)")
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "build/release/tessera", help=argparse.SUPPRESS)
    parser.add_argument("--prepare", action="store_true", help="build the peer and the models, measure nothing")
    args = parser.parse_args()
    models = engine_models.Models(args.program.resolve(), ROOT)
    report = {}
    if "quality" in args.parts:
        if args.prepare:
            models.ours(8), models.ours(4), models.peer_as_ours()
        else:
            report["quality"] = engine_quality.measure(models, args.text)
    if "smollm2" in args.parts:
        for bits, key in ((4, "4 bits"), (8, "8 bits")):
            ours, peer = models.ours(bits), models.peer(bits)
            if not args.prepare:
                result = compare(f"SmolLM2-135M, {key}", Ours(models.program, ours, args.threads), Peer(models.peer_programs(), peer, args.threads), args.turns)
                report |= result if bits == 4 else {"q8": result}
    if "moe" in args.parts:
        ours, peer = models.moe()
        if not args.prepare:
            sides = Ours(models.program, ours, args.threads), Peer(models.peer_programs(), peer, args.threads)
            report["moe"] = compare("flat MoE, 8 experts of which 2, 4 bits", *sides, args.turns)
    if "mhc" in args.parts:
        flat, mhc = models.mhc_pair()
        if not args.prepare:
            report["mhc"] = compare_mhc(models.program, flat, mhc, args.threads, args.turns)
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    report |= {"threads": args.threads, "cpu": cpu_name(), "commit": commit}
    if not args.prepare:
        print(json.dumps(report))


if __name__ == "__main__":
    main()
