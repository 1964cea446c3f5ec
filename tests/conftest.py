import json
import pathlib
import shutil

import pytest

from programs import TRAIN, run
from tiny_run import CONFIG, build, half_written, write_documents


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> pathlib.Path:
    """A folder with documents.jsonl, the data set data/, tiny.json and the finished run runs/tiny."""
    folder = tmp_path_factory.mktemp("trained")
    write_documents(folder / "documents.jsonl")
    built = build(folder, "documents.jsonl")
    assert built.returncode == 0, built.stderr
    (folder / "tiny.json").write_text(json.dumps(CONFIG))
    result = run(TRAIN, "train", "tiny.json", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert not half_written(folder)
    return folder


@pytest.fixture
def copy(trained, tmp_path) -> pathlib.Path:
    """A copy of it that the test may break."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path
