from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bounds import hang_after, num_lines
from tiebreak.engine.reference import store as module
from tiebreak.engine.reference.store import SCHEMA, LogpStore, completion_key
from tiebreak.fingerprint import file_digest, fingerprint

IDENTITY = {"weights": "a" * 64, "dtype": "float32", "schema": SCHEMA}

# What a writer in another process starts with; row n of every test is the same in every process.
WRITER = """
import json, os, resource, signal, sys, time
from pathlib import Path
import torch
from tiebreak.engine.reference.store import LogpStore, completion_key

def key(n):
    return completion_key([n], [n + 1])

def row(n):
    return -torch.rand(1 + n % 7, generator=torch.Generator().manual_seed(n))

warned = []
store = LogpStore(Path(sys.argv[1]), json.loads(sys.argv[2]), warned.append)
"""


def _key(n):
    return completion_key([n], [n + 1])


def _row(n):
    return -torch.rand(1 + n % 7, generator=torch.Generator().manual_seed(n))


def _loud(message):
    raise AssertionError(message)


def _open(folder, warn=_loud, identity=IDENTITY):
    return LogpStore(folder, identity, warn)


def _fill(folder, numbers):
    """Write these rows as one shard and return its path."""
    before = set(_shards(folder))
    store = _open(folder)
    for n in numbers:
        store.put(_key(n), _row(n))
    store.flush()
    (path,) = set(_shards(folder)) - before
    return path


def _shards(folder):
    return sorted(folder.glob("*/*.safetensors"))


def _rows_of(folder, identity=IDENTITY):
    return folder / fingerprint(identity)[:32]


def _same_bits(found, wanted):
    return found is not None and found.dtype == torch.float32 and found.numpy().tobytes() == wanted.numpy().tobytes()


def _serves(store, numbers):
    return all(_key(n) in store and _same_bits(store.get(_key(n)), _row(n)) for n in numbers)


def _writer(folder, code, *more, **options):
    command = [sys.executable, "-c", WRITER + code, str(folder), json.dumps(IDENTITY), *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, **options)


def test_a_key_hashes_both_lengths_and_all_ids_as_little_endian_int64():
    numbers = (2, 1, 5, 70_000, 3)
    spelled = b"".join(number.to_bytes(8, "little", signed=True) for number in numbers)
    assert completion_key([5, 70_000], [3]) == hashlib.sha256(spelled).digest()


def test_the_seam_between_prompt_and_completion_is_part_of_the_key():
    joined = [([1, 2], [3]), ([1], [2, 3]), ([1, 2, 3], []), ([], [1, 2, 3]), ([2, 1], [3])]
    assert len({completion_key(*ids) for ids in joined}) == len(joined)
    assert completion_key((1, 2), (3,)) == completion_key([1, 2], [3])


def test_rows_come_back_bit_for_bit_before_and_after_reopening(tmp_path):
    awkward = torch.tensor([-0.0, -1e-45, torch.finfo(torch.float32).min, -0.1, 0.0])
    store = _open(tmp_path)
    for n in range(50):
        store.put(_key(n), _row(n))
    store.put(_key(50), awkward)
    assert _serves(store, range(50))
    store.flush()
    reopened = _open(tmp_path)
    for served in (store, reopened):
        assert len(served) == 51
        assert _serves(served, range(50))
        assert _same_bits(served.get(_key(50)), awkward)
        assert _key(51) not in served
        assert served.get(_key(51)) is None


def test_looking_into_an_absent_store_writes_nothing(tmp_path):
    store = _open(tmp_path / "cache")
    store.flush()
    assert len(store) == 0
    assert store.forget() is None
    assert not list(tmp_path.iterdir())


def test_a_shard_is_named_by_its_bytes_and_the_identity_is_readable(tmp_path):
    path = _fill(tmp_path, range(3))
    assert path == _rows_of(tmp_path) / f"{file_digest(path)}.safetensors"
    assert json.loads((path.parent / "identity.json").read_text(encoding="utf-8")) == IDENTITY
    assert len(list(path.parent.iterdir())) == 2


def test_shards_can_be_read_by_whoever_may_read_the_folder(tmp_path):
    before = os.umask(0o022)
    try:
        path = _fill(tmp_path, range(3))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644


def test_the_first_value_of_a_key_stays(tmp_path):
    store = _open(tmp_path)
    store.put(_key(1), _row(1))
    store.put(_key(1), _row(1) - 1)
    store.flush()
    store.put(_key(1), _row(1) - 2)
    store.flush()
    assert len(store) == 1
    assert _serves(store, [1])
    assert len(_shards(tmp_path)) == 1


def test_nobody_can_change_a_kept_row_from_outside(tmp_path):
    store, mine = _open(tmp_path), _row(1)
    store.put(_key(1), mine)
    mine.zero_()
    store.get(_key(1)).zero_()
    assert _serves(store, [1])
    store.flush()
    store.get(_key(1)).zero_()
    assert _serves(store, [1])


def test_a_row_with_a_gradient_is_kept_without_it(tmp_path):
    store = _open(tmp_path)
    store.put(_key(1), _row(1).requires_grad_())
    assert not store.get(_key(1)).requires_grad
    store.flush()
    assert _serves(_open(tmp_path), [1])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (torch.tensor([-1.0, float("nan")]), "finite"),
        (torch.tensor([-1.0, float("-inf")]), "finite"),
        (torch.zeros(0), "not empty"),
        (torch.tensor(-1.0), r"shape \[tokens\]"),
        (torch.zeros(2, 2), r"shape \[2, 2\]"),
        (torch.zeros(2, dtype=torch.bfloat16), "bfloat16"),
        (torch.zeros(2, dtype=torch.float64), "float64"),
    ],
)
def test_what_cannot_be_a_row_is_refused_and_leaves_nothing(tmp_path, row, reason):
    store = _open(tmp_path)
    with pytest.raises(ValueError, match=reason):
        store.put(_key(1), row)
    assert len(store) == 0


def test_a_key_of_another_length_is_refused(tmp_path):
    with pytest.raises(ValueError, match="3 bytes, wanted 32"):
        _open(tmp_path).put(b"abc", _row(1))


def test_another_identity_shares_no_row(tmp_path):
    other = IDENTITY | {"dtype": "bfloat16"}
    _fill(tmp_path, range(5))
    stranger = _open(tmp_path, identity=other)
    assert len(stranger) == 0
    stranger.put(_key(0), _row(9))
    stranger.flush()
    assert _same_bits(_open(tmp_path, identity=other).get(_key(0)), _row(9))
    assert _serves(_open(tmp_path), range(5))
    assert {path.name for path in tmp_path.iterdir()} == {_rows_of(tmp_path, i).name for i in (IDENTITY, other)}


def test_the_order_of_the_identity_does_not_matter(tmp_path):
    _fill(tmp_path, range(5))
    assert _serves(_open(tmp_path, identity=dict(reversed(IDENTITY.items()))), range(5))


def test_many_waiting_rows_are_written_without_being_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FLUSH_ROWS", 10)
    store = _open(tmp_path)
    for n in range(9):
        store.put(_key(n), _row(n))
        store.flush_when_due()
    assert not _shards(tmp_path)
    for n in range(9, 25):
        store.put(_key(n), _row(n))
        store.flush_when_due()
    assert len(_shards(tmp_path)) == 2
    assert len(store) == 25
    assert _serves(_open(tmp_path), range(20))


def test_rows_that_wait_too_long_are_written_without_being_asked(tmp_path, monkeypatch):
    store = _open(tmp_path)
    store.put(_key(0), _row(0))
    store.flush_when_due()
    assert not _shards(tmp_path)
    monkeypatch.setattr(module, "FLUSH_SECONDS", 0.01)
    time.sleep(0.02)
    store.put(_key(1), _row(1))
    store.flush_when_due()
    assert _serves(_open(tmp_path), range(2))


def test_a_half_written_file_is_ignored_and_swept_when_old(tmp_path):
    path = _fill(tmp_path, range(5))
    left = [path.with_name(".0011223344556677.safetensors.tmp"), path.with_name(".identity.json.abcdefgh")]
    for half in left:
        half.write_bytes(path.read_bytes()[:100])
    assert _serves(_open(tmp_path), range(5))
    assert all(half.exists() for half in left)
    for half in left:
        os.utime(half, (time.time() - 2 * 86_400,) * 2)
    assert _serves(_open(tmp_path), range(5))
    assert not any(half.exists() for half in left)
    assert path.exists()


def _flip_the_data(path):
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)


def _flip_the_header(path):
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def _empty(path):
    path.write_bytes(b"")


def _rename(path):
    path.rename(path.with_name(f"{'0' * 64}.safetensors"))


@pytest.mark.parametrize("damage", [_flip_the_data, _flip_the_header, _truncate, _empty, _rename])
def test_a_damaged_shard_is_set_aside_with_a_warning_and_the_others_are_served(tmp_path, damage):
    _fill(tmp_path, range(5))
    damaged = _fill(tmp_path, range(5, 10))
    damage(damaged)
    warned = []
    store = _open(tmp_path, warned.append)
    assert len(store) == 5
    assert _serves(store, range(5))
    assert not any(_key(n) in store for n in range(5, 10))
    assert len(warned) == 1
    assert "\n" not in warned[0]
    assert "SHA-256" in warned[0]
    (aside,) = tmp_path.glob("*/*.corrupt")
    assert aside.name in warned[0]
    assert len(_shards(tmp_path)) == 1
    _fill(tmp_path, range(5, 10))
    assert _serves(_open(tmp_path), range(10))


def _tensors(**changes):
    whole = {
        "logps": -torch.ones(3),
        "offsets": torch.tensor([0, 1, 3]),
        "keys": torch.arange(64, dtype=torch.uint8).view(2, 32),
    }
    return {name: tensor for name, tensor in (whole | changes).items() if tensor is not None}


def _plant(folder, tensors):
    """Put a file whose name and bytes agree, whatever it holds."""
    _rows_of(folder).mkdir()
    save_file(tensors, folder / "made")
    (folder / "made").rename(_rows_of(folder) / f"{file_digest(folder / 'made')}.safetensors")


def test_a_well_formed_shard_made_elsewhere_is_served(tmp_path):
    _plant(tmp_path, _tensors())
    assert _same_bits(_open(tmp_path).get(bytes(range(32, 64))), -torch.ones(2))


@pytest.mark.parametrize(
    "changes",
    [
        {"keys": None},
        {"logps": torch.tensor([-1.0, float("nan"), -1.0])},
        {"logps": -torch.ones(3, dtype=torch.float64)},
        {"logps": -torch.ones(3, 1)},
        {"logps": -torch.ones(4)},
        {"offsets": torch.tensor([0, 1, 4])},
        {"offsets": torch.tensor([1, 2, 3])},
        {"offsets": torch.tensor([0, 0, 3])},
        {"offsets": torch.tensor([0, 4, 3])},
        {"offsets": torch.tensor([0, 3])},
        {"offsets": torch.tensor([0, 1, 3], dtype=torch.int32)},
        {"keys": torch.zeros(2, 31, dtype=torch.uint8)},
        {"keys": torch.zeros(64, dtype=torch.uint8)},
        {"logps": torch.zeros(0), "offsets": torch.zeros(1, dtype=torch.int64), "keys": _tensors()["keys"][:0]},
    ],
)
def test_a_shard_that_contradicts_itself_is_set_aside_though_its_name_is_right(tmp_path, changes):
    _plant(tmp_path, _tensors(**changes))
    warned = []
    store = _open(tmp_path, warned.append)
    assert len(store) == 0
    assert len(warned) == 1
    assert not _shards(tmp_path)
    assert len(list(tmp_path.glob("*/*.corrupt"))) == 1


def test_a_file_that_is_no_safetensors_is_set_aside_though_its_name_is_right(tmp_path):
    _rows_of(tmp_path).mkdir()
    content = b"\x80\x04pickled"
    (_rows_of(tmp_path) / f"{hashlib.sha256(content).hexdigest()}.safetensors").write_bytes(content)
    warned = []
    assert len(_open(tmp_path, warned.append)) == 0
    assert len(warned) == 1
    assert "is no shard" in warned[0]


def test_a_shard_that_cannot_be_read_is_warned_about_and_left_alone(tmp_path):
    _fill(tmp_path, range(5))
    strange = _rows_of(tmp_path) / f"{'0' * 64}.safetensors"
    strange.mkdir()
    warned = []
    assert _serves(_open(tmp_path, warned.append), range(5))
    assert len(warned) == 1
    assert strange.exists()


def test_two_processes_that_write_at_once_both_survive(tmp_path):
    code = """
first = int(sys.argv[3])
(Path(sys.argv[1]) / f"ready{first}").touch()
while len(list(Path(sys.argv[1]).glob("ready*"))) < 2:
    time.sleep(0.001)
for n in range(first, first + 60):
    store.put(key(n), row(n))
    if n % 3 == 0:
        store.flush()
store.flush()
assert not warned, warned
"""
    writers = [_writer(tmp_path, code, first) for first in ("0", "40")]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    for writer in writers:
        writer.stdout.close()
    store = _open(tmp_path)
    assert len(store) == 100
    assert _serves(store, range(100))
    assert not list(tmp_path.glob("*/.*"))


def test_where_writers_disagreed_every_opening_serves_the_shard_that_is_first_by_name(tmp_path):
    writers = [_open(tmp_path) for _ in range(8)]
    for number, writer in enumerate(writers):
        writer.put(_key(1), _row(1) - number)
        writer.flush()
    assert len(_shards(tmp_path)) == 8
    store = _open(tmp_path)
    assert len(store) == 1
    assert _same_bits(store.get(_key(1)), load_file(_shards(tmp_path)[0])["logps"])


def test_a_writer_killed_between_writing_and_renaming_loses_only_that_shard(tmp_path):
    code = """
for n in range(5):
    store.put(key(n), row(n))
store.flush()
store.put(key(5), row(5))
os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
store.flush()
"""
    writer = _writer(tmp_path, code)
    assert writer.wait(120) == -signal.SIGKILL
    writer.stdout.close()
    assert len(list(tmp_path.glob("*/.*.safetensors.*"))) == 1
    store = _open(tmp_path)
    assert len(store) == 5
    assert _serves(store, range(5))


def test_a_writer_killed_at_any_moment_keeps_what_it_flushed(tmp_path):
    code = """
n = 0
while True:
    store.put(key(n), row(n))
    store.flush()
    print(n, flush=True)
    n += 1
"""
    with _writer(tmp_path, code) as writer:
        flushed = [int(writer.stdout.readline()) for _ in range(30)]
        writer.send_signal(signal.SIGKILL)
        flushed += [int(line) for line in writer.stdout.read().splitlines()]
    assert _serves(_open(tmp_path), flushed)


def test_a_folder_that_cannot_be_written_warns_once_and_rows_are_served_from_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FLUSH_ROWS", 10)
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    warned = []
    store = _open(tmp_path / "file" / "cache", warned.append)
    for n in range(35):
        store.put(_key(n), _row(n))
    store.flush()
    store.flush()
    assert len(warned) == 1
    assert "\n" not in warned[0]
    assert "cannot be written" in warned[0]
    assert len(store) == 35
    assert _serves(store, range(35))
    assert store.forget() is None
    assert len(store) == 0
    assert len(warned) == 1


def test_after_a_failure_only_an_explicit_flush_tries_again(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FLUSH_ROWS", 10)
    blocking = tmp_path / "cache"
    blocking.write_text("not a folder", encoding="utf-8")
    warned = []
    store = _open(blocking, warned.append)
    for n in range(10):
        store.put(_key(n), _row(n))
        store.flush_when_due()
    assert len(warned) == 1
    blocking.unlink()
    for n in range(10, 25):
        store.put(_key(n), _row(n))
        store.flush_when_due()
    assert not blocking.exists()
    store.flush()
    assert _serves(_open(blocking), range(25))
    for n in range(25, 35):
        store.put(_key(n), _row(n))
        store.flush_when_due()
    assert len(_shards(blocking)) == 2
    assert len(warned) == 1


def test_a_full_disk_leaves_no_rest_and_a_later_flush_writes_what_waited(tmp_path):
    # A limit on the size of files stands for the full disk: the write fails half-way, as it does there.
    code = """
store.put(key(0), row(0))
store.flush()
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
for n in range(1, 100):
    store.put(key(n), row(n))
store.flush()
store.flush()
assert len(warned) == 1 and "File too large" in warned[0], warned
assert all(torch.equal(store.get(key(n)), row(n)) for n in range(100))
assert not list(Path(sys.argv[1]).glob("*/.*"))
assert len(list(Path(sys.argv[1]).glob("*/*.safetensors"))) == 1
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
store.flush()
"""
    writer = _writer(tmp_path, code)
    assert writer.wait(120) == 0
    writer.stdout.close()
    assert _serves(_open(tmp_path), range(100))


def test_what_is_forgotten_is_set_aside_and_never_loaded_again(tmp_path):
    _fill(tmp_path, range(5))
    store = _open(tmp_path)
    store.put(_key(5), _row(5))
    aside = store.forget()
    assert aside == Path(f"{_rows_of(tmp_path)}.stale-1")
    assert len(list(aside.glob("*.safetensors"))) == 1
    assert len(store) == 0
    assert store.get(_key(1)) is None
    assert len(_open(tmp_path)) == 0
    store.put(_key(1), _row(1) - 1)
    store.flush()
    assert _same_bits(_open(tmp_path).get(_key(1)), _row(1) - 1)
    assert (_rows_of(tmp_path) / "identity.json").exists()
    assert _open(tmp_path).forget() == Path(f"{_rows_of(tmp_path)}.stale-2")


def test_a_hundred_thousand_rows_open_in_seconds(tmp_path):
    store, row = _open(tmp_path), -torch.rand(100)
    keys = [hashlib.sha256(n.to_bytes(8, "little")).digest() for n in range(100_000)]
    for key in keys:
        store.put(key, row)
        store.flush_when_due()
    store.flush()
    assert len(_shards(tmp_path)) >= 13
    with hang_after():
        assert num_lines(lambda: _open(tmp_path)) < 10 * len(keys)
    reopened = _open(tmp_path)
    assert len(reopened) == 100_000
    assert all(_same_bits(reopened.get(key), row) for key in keys[::997])
