"""Fetch a corpus set: packages by name -> documents, one JSONL file a source.

    python tools/corpus/fetch.py small            # writes data/small/raw/*.jsonl.zst and fetch.json
    python tools/corpus/fetch.py full --out /big/full
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
from collections import defaultdict
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from archives import fetch_archives  # noqa: E402
from errors import UserError  # noqa: E402
from manifest import SETS, Manifest, Source, load_manifest  # noqa: E402
from report import print_tables  # noqa: E402
from unpack import Result, unpack_source  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
TOOLS_VERSION = 1  # raise it when the same manifest and packages would give other documents


def say(text: str) -> None:
    """A progress line, at once."""
    print(text, flush=True)


def source_key(source: Source, set_name: str) -> str:
    """Changes whenever the source's documents would: its entry, the set, the converters."""
    entry = {k: v for k, v in asdict(source).items() if k not in ("sets", "note", "max_mb")}
    entry |= {"cap": source.max_mb.get(set_name), "tools": TOOLS_VERSION}
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()[:16]


def fetch_set(manifest: Manifest, set_name: str, cache: Path, out: Path, workers: int, known: dict[str, Result]) -> list[Result]:
    """Download (4 at a time) and unpack (`workers` processes) together; results in the manifest's order.

    `known`: results of an earlier run in `out`; those whose entry is unchanged are taken over.
    """
    sources = manifest.for_set(set_name)
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = out.with_name(f".{out.name}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    by_package: dict[tuple[str, str], list[Source]] = defaultdict(list)
    results: dict[str, Result] = {}
    for source in sources:
        before = known.get(source.source)
        if before and before.key == source_key(source, set_name):
            shutil.copy2(out / f"{source.source}.jsonl.zst", fresh)
            results[source.source] = before
        else:
            by_package[source.registry, source.package].append(source)
    if results:
        say(f"{len(results)} of {len(sources)} sources are unchanged and kept")
    unpacking: list[Future[Result]] = []
    started = time.time()
    try:
        with ThreadPoolExecutor(4) as downloads, ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as unpacks:
            # spawn, not fork: a forked worker would hold the pipes of clients that run meanwhile

            def unpack_all(group: list[Source]) -> None:
                unpacking.extend(unpacks.submit(unpack_source, s, set_name, cache, fresh) for s in group)

            pending: dict[Future, str] = {}
            for registry in ("debian", "npm", "pypi", "generator"):
                packages = [package for r, package in by_package if r == registry]
                if registry == "generator":
                    for package in packages:
                        unpack_all(by_package[registry, package])
                    continue
                size = 8 if registry == "debian" else 1
                for batch in (packages[i : i + size] for i in range(0, len(packages), size)):
                    pending[downloads.submit(fetch_archives, cache, registry, batch)] = registry
            try:
                for done in as_completed(pending):
                    for package, archive, is_new in done.result():
                        if is_new:
                            say(f"[{time.time() - started:5.1f} s] fetched {archive.name} ({archive.stat().st_size / 1e6:.1f} MB)")
                        unpack_all(by_package[pending[done], package])
                by_name = {s.source: s for s in sources}
                for finished in as_completed(unpacking):
                    result = finished.result()
                    result.key = source_key(by_name[result.source], set_name)
                    results[result.source] = result
                    say(f"[{time.time() - started:5.1f} s] {len(results)}/{len(sources)} {result.source}: "
                        f"{result.documents} documents, {result.text_bytes / 1e6:.2f} MB, {result.seconds:.1f} s")
            except BaseException:
                downloads.shutdown(cancel_futures=True)
                unpacks.shutdown(cancel_futures=True)
                raise
        ordered = [results[s.source] for s in sources]
        summary = {"manifest_sha256": manifest.sha256, "tools_version": TOOLS_VERSION, "set": set_name, "sources": [asdict(r) for r in ordered]}
        (fresh / "fetch.json").write_text(json.dumps(summary, indent=1) + "\n")
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    shutil.rmtree(out, ignore_errors=True)
    fresh.rename(out)
    return ordered


def earlier_results(out: Path) -> tuple[str, dict[str, Result]]:
    """(manifest hash, results by source) of the run that wrote `out`; ("", {}) where there is none."""
    try:
        summary = json.loads((out / "fetch.json").read_text())
        results = {row["source"]: Result(**row) for row in summary["sources"]}
        return summary["manifest_sha256"], {name: r for name, r in results.items() if (out / f"{name}.jsonl.zst").exists()}
    except (OSError, ValueError, KeyError, TypeError):
        return "", {}


def main(arguments: list[str] | None = None) -> int:
    """The command; 0, or 2 when something that the user can mend is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=SETS, help="which set of the manifest")
    parser.add_argument("--out", type=Path, help="output folder (default data/<set>/raw)")
    parser.add_argument("--manifest", type=Path, default=ROOT / "data/manifest.json")
    parser.add_argument("--cache", type=Path, default=ROOT / "data/cache", help="where package archives are kept")
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1), help="unpacking processes")
    parser.add_argument("--force", action="store_true", help="unpack again even when the output is up to date")
    given = parser.parse_args(arguments)
    out = (given.out or ROOT / "data" / given.set / "raw").resolve()
    try:
        manifest = load_manifest(given.manifest)
        sources = manifest.for_set(given.set)
        written_by, known = ("", {}) if given.force else earlier_results(out)
        if written_by == manifest.sha256 and all(s.source in known and known[s.source].key == source_key(s, given.set) for s in sources):
            results = [known[s.source] for s in sources]
            say(f"{out} is up to date (manifest {manifest.sha256[:12]}); --force unpacks again")
        else:
            results = fetch_set(manifest, given.set, given.cache.resolve(), out, given.workers, known)
    except UserError as fault:
        print(fault, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; nothing half-written is left, a new call goes on with the packages already in the cache", file=sys.stderr)
        return 130
    except OSError as fault:
        print(f"error: {fault}\nhint: check free disk space and permissions of {given.cache} and {out.parent}", file=sys.stderr)
        return 2
    print_tables(results)
    say(f"written to {out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
