#!/usr/bin/env python3
"""Fails on an include that points against the arrows of ARCHITECTURE.md, on LibTorch or SIMD headers
outside their folder, on a file that is too long, and on a machine's absolute path.

Example: python tools/check_deps.py
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# folder -> folders it may include from
ARROWS = {
    "base": set(),
    "kernels": {"base"},
    "core": {"base"},
    "data": {"base", "core"},
    "train": {"base", "core", "data", "kernels"},
    "engine": {"base", "core", "kernels"},
    "chat": {"base", "core", "engine"},
    "apps": {"base", "core", "data", "kernels", "train", "engine", "chat"},
}
TORCH = re.compile(r'#include [<"](torch|ATen|c10)/')
SIMD = re.compile(r'#include [<"](immintrin\.h|x86intrin\.h|hwy/)')
TORCH_FOLDERS, SIMD_FOLDERS = {"train", "apps"}, {"kernels"}
MAX_LINES = 800


def tracked_files() -> list[pathlib.Path]:
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True)
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def complaints_about(path: pathlib.Path) -> list[str]:
    found = []
    name = path.relative_to(ROOT)
    if path.suffix not in {".cpp", ".h", ".py", ".ts", ".tsx", ".js", ".css", ".sh"}:
        return found
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    if len(lines) > MAX_LINES:
        found.append(f"{name}: {len(lines)} lines; past {MAX_LINES} a file does not pass, split it")
    if str(ROOT) in text:
        found.append(f"{name}: names this machine's folder {ROOT}")
    if name.parts[0] != "src" or path.suffix not in {".cpp", ".h"}:
        return found
    folder = name.parts[1]
    for number, line in enumerate(lines, 1):
        place = f"{name}:{number}"
        include = re.match(r'#include "(\w+)/', line)
        if include and include[1] in ARROWS and include[1] != folder and include[1] not in ARROWS[folder]:
            found.append(f"{place}: {folder} must not include from {include[1]}")
        if TORCH.match(line) and folder not in TORCH_FOLDERS:
            found.append(f"{place}: only train may include LibTorch")
        if SIMD.match(line) and folder not in SIMD_FOLDERS:
            found.append(f"{place}: only kernels may include SIMD headers")
    return found


def main() -> int:
    files = tracked_files()
    found = [complaint for path in files for complaint in complaints_about(path)]
    for complaint in found:
        print(complaint)
    print(f"check_deps: {len(files)} files, {len(found)} complaints")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
