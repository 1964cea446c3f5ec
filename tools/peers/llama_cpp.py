#!/usr/bin/env python3
"""Builds llama.cpp, the peer of `./tessera bench engine`, and prints the folder of its programs.

Its sources come from the PyPI source package `llama-cpp-python`; they are unpacked and built, for this CPU and with its
repacked kernels, under build/peers: outside the source tree. A second call finds everything done.

Example: python tools/peers/llama_cpp.py --out build/peers
"""

import argparse
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

VERSION = "0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"  # of the source package
PROGRAMS = ["llama-bench", "llama-batched-bench", "llama-completion", "llama-perplexity", "llama-quantize"]
OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "BUILD_SHARED_LIBS": "OFF",
    "GGML_NATIVE": "ON",
    "GGML_CPU_REPACK": "ON",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_SERVER": "OFF",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_OPENSSL": "OFF",
}


def die(message: str, hint: str) -> None:
    print(f"error: {message}\nhint:  {hint}", file=sys.stderr)
    sys.exit(2)


def run(command: list, log: pathlib.Path, what: str, hint: str) -> None:
    print(f"{what} (log: {log})", file=sys.stderr)
    with open(log, "w") as file:
        if subprocess.run([str(c) for c in command], stdout=file, stderr=subprocess.STDOUT).returncode != 0:
            print("".join(log.read_text(errors="replace").splitlines(keepends=True)[-20:]), file=sys.stderr)
            die(f"{what} failed", hint)


def fetch(out: pathlib.Path) -> pathlib.Path:
    """The unpacked sources of llama.cpp."""
    package = out / f"llama_cpp_python-{VERSION}.tar.gz"
    source = out / f"llama_cpp_python-{VERSION}" / "vendor" / "llama.cpp"
    if not package.is_file():
        pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--no-binary", "llama-cpp-python"]
        run([*pip, "--dest", out, f"llama-cpp-python=={VERSION}"], out / "download.log", "fetching llama.cpp", "check the network, then run the command again")
    with open(package, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        die(f"{package} has SHA-256 {found}, expected {SHA256}", "delete the file and run the command again")
    if not (source / "CMakeLists.txt").is_file():
        shutil.rmtree(out / "unpacking", ignore_errors=True)
        with tarfile.open(package) as archive:
            archive.extractall(out / "unpacking", filter="data")
        (out / "unpacking" / f"llama_cpp_python-{VERSION}").rename(out / f"llama_cpp_python-{VERSION}")
        (out / "unpacking").rmdir()
    return source


def build(out: pathlib.Path) -> pathlib.Path:
    """The folder of the programs, built when they are missing."""
    out.mkdir(parents=True, exist_ok=True)
    folder = out / f"llama.cpp-{VERSION}"
    programs = folder / "bin"
    if all((programs / name).is_file() for name in PROGRAMS):
        return programs
    source = fetch(out)
    hint = f"delete {folder} and run the command again"
    run(["cmake", "-G", "Ninja", "-S", source, "-B", folder, *(f"-D{k}={v}" for k, v in OPTIONS.items())], out / "configure.log", "configuring llama.cpp", hint)
    jobs = os.environ.get("TESSERA_JOBS", "1")
    run(["cmake", "--build", folder, f"-j{jobs}", "--target", *PROGRAMS], out / "build.log", "building llama.cpp, some 15 minutes on one core", hint)
    return programs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True, help="sources, build and logs are kept here")
    print(build(parser.parse_args().out.resolve()))


if __name__ == "__main__":
    main()
