"""Names to files: in an order that never changes, and one line where nothing is found."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tiebreak.data.locations import locate
from tiebreak.errors import DataError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder that holds data/, with files of all kinds."""
    names = [
        "data/b.jsonl", "data/a.JSONL.gz", "data/c.csv", "data/deep/er/d.parquet", "data/deep/e.json.zst", "data/f.tsv",
        "data/deep/g-00000-of-00001.arrow", "data/README.md", "data/.hidden.jsonl", "data/.git/x.jsonl", "data/z.txt",
        "data/deep/dataset_info.json", "data/deep/state.json", "data/model.safetensors", "data/jsonl",
    ]  # fmt: skip
    random.Random(0).shuffle(names)
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


DATA = [
    "a.JSONL.gz",
    "b.jsonl",
    "c.csv",
    "deep/e.json.zst",
    "deep/er/d.parquet",
    "deep/g-00000-of-00001.arrow",
    "f.tsv",
]


def refusal(spec: str) -> str:
    with pytest.raises(DataError) as raised:
        locate(spec)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# ---------------------------------------------------------------------------------------------------- files and folders


def test_a_file_is_itself_whatever_its_name(folder):
    for name in ("data/b.jsonl", "data/README.md", "data/.hidden.jsonl", str(folder / "data/b.jsonl")):
        assert locate(name) == [(Path(name), Path(name).name)]


def test_a_file_that_is_called_like_a_data_set_of_the_hub_is_not_passed_over(folder):
    Path("hf:name").write_text("{}\n")
    assert refusal("hf:name").endswith("write ./hf:name for it")
    assert locate("./hf:name") == [(Path("hf:name"), "hf:name")]


def test_the_bundled_pairs_have_a_name_of_their_own():
    ((path, name),) = locate("bundled")
    assert name == "pairs.jsonl"
    assert path.is_file()


def test_a_folder_is_its_data_files_in_order(folder):
    for spec in ("data", "data/", "./data", str(folder / "data"), "data/deep/.."):
        found = locate(spec)
        assert [name.partition("/")[2] for _, name in found] == DATA
        assert all(path.is_file() for path, _ in found)
    assert {name.partition("/")[0] for _, name in locate("data")} == {"data"}


def test_a_folder_without_data_is_refused(folder):
    (folder / "empty").mkdir()
    (folder / "texts").mkdir()
    (folder / "texts" / "a.md").write_text("x")
    assert refusal("empty").startswith("empty: no data file in this folder (it is empty); wanted .jsonl")
    assert refusal("texts").startswith("texts: no data file in this folder (it holds 1 other files); wanted .jsonl")


def test_links_to_files_are_followed_and_links_to_folders_are_not(folder):
    (folder / "data" / "link.jsonl").symlink_to(folder / "data" / "b.jsonl")
    (folder / "data" / "loop").symlink_to(folder / "data")
    (folder / "data" / "self.jsonl").symlink_to("self.jsonl")
    (folder / "data" / "gone.jsonl").symlink_to("nowhere.jsonl")
    assert [name.partition("/")[2] for _, name in locate("data")] == [*DATA, "link.jsonl"]
    assert len(locate("data/**/*.jsonl")) == 2
    assert [name for _, name in locate("data/loop/c.csv")] == ["c.csv"]


def test_a_missing_file_is_named_with_its_nearest_neighbour(folder):
    assert refusal("data/b.json") == "data/b.json: no such file. Did you mean 'b.jsonl'?"
    assert refusal("dta") == "dta: no such file. Did you mean 'data'?"
    assert refusal("data/b.jsonl/below") == "data/b.jsonl/below: no such file."
    assert refusal("nowhere/at/all.jsonl") == "nowhere/at/all.jsonl: no such file."
    assert refusal("") == refusal(" ") == "the data have no name, but an empty one; name a file, a folder or a pattern"
    (folder / "gone.jsonl").symlink_to("nowhere.jsonl")
    assert refusal("gone.jsonl") == "gone.jsonl: no such file. It is a link that leads nowhere."


def test_what_cannot_be_read_as_a_file_is_refused(folder):
    os.mkfifo(folder / "pipe.jsonl")
    (folder / "self").symlink_to("self")
    assert refusal("pipe.jsonl") == "pipe.jsonl: is a pipe, a socket or a device, not a file"
    assert refusal("/dev/zero") == "/dev/zero: is a pipe, a socket or a device, not a file"
    assert refusal("self") == "self: cannot be read (Too many levels of symbolic links)"
    assert "cannot be read" in refusal("a\0b")
    assert "cannot be read" in refusal("x" * 5000)


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_a_folder_that_may_not_be_read_is_refused(folder):
    (folder / "data" / "deep").chmod(0)
    try:
        assert "cannot be read (Permission denied)" in refusal("data")
    finally:
        (folder / "data" / "deep").chmod(0o700)


def test_a_name_that_is_no_utf8_can_be_shown(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.jsonl")).write_text("{}")
    ((path, name),) = locate(str(tmp_path))
    assert name.endswith("/caf\ufffd.jsonl")
    assert path.is_file()


# ------------------------------------------------------------------------------------------------------------- patterns


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("data/*.jsonl", ["data/b.jsonl"]),
        ("data/*", [f"data/{name}" for name in DATA if "/" not in name]),
        ("data/**/*", [f"data/{name}" for name in DATA]),
        ("**/*.[cp]*", ["c.csv", "d.parquet"]),
        ("data/?.[ct]sv", ["data/c.csv", "data/f.tsv"]),
        ("data/*.txt", ["data/z.txt"]),
        ("data/*/*.arrow", ["data/deep/g-00000-of-00001.arrow"]),
        ("d*/deep/*.zst", ["data/deep/e.json.zst"]),
    ],
)
def test_a_pattern_is_the_files_that_match_in_order(folder, pattern, names):
    found = locate(pattern)
    assert len(found) == len(names)
    assert all(shown.endswith(name) for (_, shown), name in zip(found, names, strict=True))
    assert [(path.name, shown) for path, shown in locate(str(folder / pattern))] == [
        (path.name, shown) for path, shown in found
    ]


def test_a_pattern_without_a_match_is_refused(folder):
    assert refusal("data/*.xlsx") == "data/*.xlsx: no file matches this pattern"
    assert refusal("nowhere/*.jsonl") == "nowhere/*.jsonl: no file matches this pattern"
    assert "is no pattern of files" in refusal("data/**x/*")


def test_a_file_whose_name_looks_like_a_pattern_is_itself(folder):
    (folder / "a[1].jsonl").write_text("{}")
    assert locate("a[1].jsonl") == [(Path("a[1].jsonl"), "a[1].jsonl")]


# -------------------------------------------------------------------------------------------------------------- the Hub


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A data set in a local folder, which the library takes where one has the name of the set."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    for name in ("train-1.jsonl", "train-2.jsonl", "test.jsonl"):
        path = tmp_path / "owner" / "name" / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"prompt": "Why?"}\n')
    for name in ("en/train.csv", "de/train.csv"):
        path = tmp_path / "owner" / "languages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("prompt,chosen\na,b\n")
    (tmp_path / "owner" / "languages" / "README.md").write_text(
        "---\nconfigs:\n- {config_name: all, data_files: '*/train.csv'}\n"
        "- {config_name: en, data_files: [{split: dev, path: en/train.csv}]}\n---\n"
    )
    return tmp_path


def test_a_data_set_of_the_hub_is_the_files_of_a_split(hub):
    files = hub / "owner" / "name" / "data"
    assert locate("hf:owner/name@test") == [(files / "test.jsonl", "hf:owner/name@test/test.jsonl")]
    assert locate("hf:owner/name") == [
        (files / "train-1.jsonl", "hf:owner/name/train-1.jsonl"),
        (files / "train-2.jsonl", "hf:owner/name/train-2.jsonl"),
    ]
    assert locate("hf:owner/name:default@train")[0][0] == files / "train-1.jsonl"


def test_files_of_one_name_are_told_apart_and_a_config_chooses(hub):
    assert sorted(name for _, name in locate("hf:owner/languages:all")) == [
        "hf:owner/languages:all/de/train.csv",
        "hf:owner/languages:all/en/train.csv",
    ]
    assert [name for _, name in locate("hf:owner/languages:en")] == ["hf:owner/languages:en/train.csv"]


def test_what_a_data_set_has_not_is_refused_by_name(hub):
    assert refusal("hf:owner/name@dev") == "hf:owner/name@dev: has no split 'dev'; choose from train, test"
    assert "cannot be loaded from the Hub" in refusal("hf:owner/name:other")
    for odd in ("hf:", "hf:a/b/c", "hf:owner/name@train[:10]", "hf:../name", "hf:owner/name@", "hf:o w/n"):
        assert "is no data set of the Hub; wanted hf:owner/name" in refusal(odd)


def test_without_the_library_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert refusal("hf:owner/name") == "hf:owner/name: needs the library 'datasets'; pip install 'tiebreak[hub]'"


def test_offline_the_hub_is_refused_in_one_line(tmp_path):
    pytest.importorskip("datasets")
    code = "from tiebreak.data.locations import locate; locate('hf:owner/surely-not-here')"
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    call = [sys.executable, "-c", code]
    done = subprocess.run(call, capture_output=True, text=True, env=offline, cwd=tmp_path, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "DataError: hf:owner/surely-not-here: the Hub cannot be reached (HF_HUB_OFFLINE is set)" in last
    assert "During handling of the above exception" not in done.stderr
