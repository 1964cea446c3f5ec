"""src/base/event_file against a reader written from TensorFlow's definitions (TFRecord, event.proto, summary.proto)."""

import os
import pathlib
import struct
import subprocess

import pytest

from programs import ROOT

PROGRAM = r"""
#include "base/event_file.h"
int main(int, char** argv) {
  {
    tessera::EventFile file(argv[1]);
    for (int step = 0; step < 200; ++step) file.scalar("train/loss", step, 8.0 - 0.01 * step);
    file.scalar("heldout_bpb/prose, \xc3\xa4ltere", 5'000'000'000, -1e-3);
  }
  tessera::EventFile(argv[1], 150).scalar("train/loss", 150, 6.5);
}
"""


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(data: bytes):
    at = 0
    while at < len(data):
        (length,), (check,) = struct.unpack_from("<Q", data, at), struct.unpack_from("<I", data, at + 8)
        assert check == masked(data[at : at + 8])
        payload = data[at + 12 : at + 12 + length]
        assert len(payload) == length and struct.unpack_from("<I", data, at + 12 + length)[0] == masked(payload)
        yield payload
        at += 16 + length


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def message(data: bytes) -> dict[int, object]:
    """Field number -> value; bytes for submessages and strings."""
    fields, at = {}, 0
    while at < len(data):
        key, at = varint(data, at)
        number, kind = key >> 3, key & 7
        assert number not in fields
        if kind == 0:
            fields[number], at = varint(data, at)
        elif kind == 1:
            (fields[number],), at = struct.unpack_from("<d", data, at), at + 8
        elif kind == 2:
            length, at = varint(data, at)
            fields[number], at = data[at : at + length], at + length
        elif kind == 5:
            (fields[number],), at = struct.unpack_from("<f", data, at), at + 4
        else:
            pytest.fail(f"wire type {kind}")
    assert at == len(data)
    return fields


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    work = tmp_path_factory.mktemp("event_file")
    (work / "write.cpp").write_text(PROGRAM)
    compiler = os.environ.get("CXX", "g++")
    sources = [str(work / "write.cpp"), str(ROOT / "src/base/event_file.cpp")]
    subprocess.run([compiler, "-std=c++20", f"-I{ROOT / 'src'}", *sources, "-o", str(work / "write")], check=True)
    subprocess.run([str(work / "write"), str(work / "run")], check=True)
    return work / "run"


def read_events(path: pathlib.Path) -> list[dict[int, object]]:
    return [message(record) for record in records(path.read_bytes())]


def scalar(event: dict[int, object]) -> tuple[int, str, float]:
    value = message(message(event[5])[1])
    return event[2], value[1].decode(), value[2]


def test_file_version_comes_first(folder):
    events = read_events(folder / "events.out.tfevents.000001")
    assert events[0][3] == b"brain.Event:2" and 5 not in events[0]
    assert all(event[1] > 1.6e9 for event in events), "wall_time is in seconds since 1970"


def test_scalars(folder):
    scalars = [scalar(event) for event in read_events(folder / "events.out.tfevents.000001")[1:]]
    assert [step for step, _, _ in scalars] == [*range(200), 5_000_000_000]
    assert scalars[7][1] == "train/loss" and scalars[7][2] == pytest.approx(7.93)
    assert scalars[-1][1] == "heldout_bpb/prose, ältere" and scalars[-1][2] == pytest.approx(-1e-3)


def test_going_on_starts_a_session_in_the_next_file(folder):
    assert sorted(p.name for p in folder.iterdir()) == ["events.out.tfevents.000001", "events.out.tfevents.000002"]
    version, session, loss = read_events(folder / "events.out.tfevents.000002")
    assert version[3] == b"brain.Event:2"
    assert session[2] == 150 and message(session[7]) == {1: 1}  # SessionLog.START: what came after step 150 is forgotten
    assert scalar(loss) == (150, "train/loss", 6.5)
