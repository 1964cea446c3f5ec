"""Fetch packages by name with the registries' ordinary clients, cache them, and read members without unpacking to disk."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import urllib.parse
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from errors import UserError

REGISTRIES = ("debian", "npm", "pypi", "generator")

_CLIENT = {
    "debian": ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root"],
    "npm": ["npm", "pack", "--silent"],
    "pypi": [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"],
}
_HINT = {
    "debian": "run `apt-get update` as root once, and check that the machine reaches the Debian mirror",
    "npm": "check that npm is installed and that the machine reaches the npm registry",
    "pypi": "check that pip is installed and that the machine reaches PyPI",
}
_SUFFIXES = {"debian": (".deb",), "npm": (".tgz",), "pypi": (".whl", ".tar.gz", ".zip")}


def package_dir(cache: Path, registry: str, package: str) -> Path:
    """The cache folder of one package; a scoped npm name keeps a single level."""
    return cache / registry / urllib.parse.quote(package, safe="")


def find_archive(cache: Path, registry: str, package: str) -> Path | None:
    """The cached archive of a package, or None."""
    folder = package_dir(cache, registry, package)
    if not folder.is_dir():
        return None
    found = sorted(p for p in folder.iterdir() if p.name.endswith(_SUFFIXES[registry]))
    return found[-1] if found else None


def fetch_archives(cache: Path, registry: str, packages: list[str]) -> list[tuple[str, Path, bool]]:
    """(package, archive, downloaded now?) of each package; Debian ones that are missing come by one call of apt-get."""
    missing = [p for p in packages if find_archive(cache, registry, p) is None]
    if registry == "debian" and len(missing) > 1:
        (cache / registry).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache / registry) as temp:
            _run_client(registry, missing, Path(temp))  # where it fails, the calls one by one below find out why
            for archive in Path(temp).glob("*.deb"):
                package = archive.name.partition("_")[0]
                if package in missing:
                    _keep(archive, package_dir(cache, registry, package))
    return [(p, _fetch_one(cache, registry, p), p in missing) for p in packages]


def _fetch_one(cache: Path, registry: str, package: str) -> Path:
    """The cached archive, or a download into a temporary folder that is then renamed: never a half-written archive."""
    cached = find_archive(cache, registry, package)
    if cached is not None:
        return cached
    (cache / registry).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache / registry) as temp:
        done = _run_client(registry, [package], Path(temp))
        got = sorted(p for p in Path(temp).iterdir() if p.name.endswith(_SUFFIXES[registry]))
        if done.returncode != 0 or not got:
            said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            reason = said[-1].strip() if said else "nothing was downloaded"
            raise UserError(f"package {package!r} ({registry}) can't be fetched with {_CLIENT[registry][0]}: {reason}", _HINT[registry])
        return _keep(got[0], package_dir(cache, registry, package))


def _run_client(registry: str, packages: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    command = [*_CLIENT[registry], *packages]
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)
    except FileNotFoundError:
        raise UserError(f"package {packages[0]!r}: the client {command[0]!r} is not installed", _HINT[registry]) from None
    except subprocess.TimeoutExpired:
        raise UserError(f"package {packages[0]!r}: {command[0]} did not finish in 15 minutes", _HINT[registry]) from None


def _keep(archive: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return archive.rename(folder / urllib.parse.unquote(archive.name))


def read_members(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Yield (path inside the package, bytes) of each regular file that `wanted` accepts; nothing is written to disk."""
    name = archive.name
    if name.endswith(".deb"):
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE) as process:
            with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                yield from _tar_members(tar, wanted)
        if process.returncode != 0:
            raise UserError(f"archive {archive} is broken (dpkg-deb: {process.returncode})", f"delete {archive} and fetch again")
    elif name.endswith((".tgz", ".tar.gz")):
        with tarfile.open(archive, mode="r|gz") as tar:
            yield from _tar_members(tar, wanted)
    else:
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                if not info.is_dir() and wanted(info.filename):
                    yield info.filename, zipped.read(info)


def _tar_members(tar: tarfile.TarFile, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    for member in tar:
        path = member.name.removeprefix("./")
        if member.isfile() and wanted(path):
            stream = tar.extractfile(member)
            if stream is not None:
                yield path, stream.read()
