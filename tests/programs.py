"""The programs under test, how to run one, and what a refusal looks like. TESSERA_BIN and TESSERA_TRAIN_BIN name other
builds than build/release."""

import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).parent.parent
TESSERA = os.environ.get("TESSERA_BIN", str(ROOT / "build/release/tessera"))
TRAIN = os.environ.get("TESSERA_TRAIN_BIN", str(ROOT / "build/release/tessera-train"))
TOKENIZER = ROOT / "data/tokenizers/tessera-4096.json"


def run(program: str, *arguments, cwd, timeout=300, **options) -> subprocess.CompletedProcess:
    command = [program, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, errors="replace", timeout=timeout, **options)


def refused(result: subprocess.CompletedProcess, *parts: str, hint: bool = True) -> None:
    """The user's fault: said in one line that holds every part."""
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert result.returncode == 2, f"exit code {result.returncode}\n{result.stderr}"
    assert len(errors) == 1, result.stderr
    for part in parts:
        assert part in errors[0], f"{errors[0]}\nlacks {part!r}"
    if hint:
        assert any(line.startswith("hint:") for line in result.stderr.splitlines()), result.stderr
