"""Data that an earlier start prepared come back equal in every field, and only where nothing changed for them."""

from __future__ import annotations

import contextlib
import copy
import errno
import gzip
import json
import os
import random
import re
import shutil
import stat
import subprocess
import sys
import threading
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiebreak import faults
from tiebreak.config import DataConfig
from tiebreak.data import cache, ready_made
from tiebreak.data.preparation import PreparedData, prepare
from tiebreak.data.reader import open_data
from tiebreak.data.ready_made import ready_made as prepared
from tiebreak.data.render import Renderer
from tiebreak.errors import DataError
from tiebreak.progress import Silent
from tiebreak.seals import seal_of_file

WORDS = ("cat", "dog", "mat", "park", "sun", "tree", "road", "lake", "bird", "fish")


class Heard(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def rows(num: int, start: int = 0, **more):
    return [
        {"prompt": f"the cat {n}", "chosen": f"yes {n}", "rejected": "no"} | more for n in range(start, start + num)
    ]


def saved(path: Path, made) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return str(path)


def renderer_of(tokenizer, data: DataConfig, **more) -> Renderer:
    return Renderer(tokenizer, (tokenizer.eos_token_id,), data, **more)


def equal(one: PreparedData, other: PreparedData) -> bool:
    """Every field, to the last bit of what is stated, and every table in its order."""
    tables = [[(of.train.digest(), of.train.ids_digest(), list(of.train))] for of in (one, other)]
    sides = [[(list(side.pairs), list(side.tokenized)) for side in (of.heldout, of.aside)] for of in (one, other)]
    assert tables[0] == tables[1]
    assert sides[0] == sides[1]
    assert one.dropped == other.dropped
    assert json.dumps(one.report) == json.dumps(other.report)
    assert one.report == other.report
    return one.fingerprint == other.fingerprint


@pytest.fixture
def file(tmp_path):
    return saved(tmp_path / "train.jsonl", [*rows(40), {"prompt": "", "chosen": "a", "rejected": "b"}])


@pytest.fixture
def started(tokenizer, tmp_path, file, monkeypatch):
    """Prepare as a start does; return the data, what was said, and whether records were read."""

    def start(say=None, **changes):
        data = DataConfig(**{"train": file, "max_length": 128, "store": str(tmp_path / "store")} | changes)
        asked = []
        own = lambda *args: asked.append(1) or prepare(*args)  # noqa: E731
        monkeypatch.setattr(ready_made, "prepare", own)
        heard = Heard()
        return prepared(data, renderer_of(tokenizer, data), heard), heard.said, bool(asked)

    return start


def kept(store: Path) -> list[Path]:
    return sorted(path for path in store.iterdir() if path.name != ".gitignore")


def entry(tmp_path) -> Path:
    [found] = (tmp_path / "store").glob(".tokens-*")
    return found


# ------------------------------------------------------------------------------------------------------ equal and again


def test_a_second_start_reads_no_record_and_says_so(started, tokenizer, tmp_path, file):
    first, said, read = started()
    assert (said, read) == ([], True)
    again, said, read = started()
    assert not read
    assert said == [f"prepared tokens: from an earlier start with the same data and settings ({entry(tmp_path)})"]
    assert equal(first, again)
    plain = DataConfig(train=file, max_length=128)
    assert equal(prepare(plain, renderer_of(tokenizer, plain)), again)


def _judged(draw: random.Random, form: str, number: int) -> dict:
    words = lambda: " ".join(draw.choices(WORDS, k=draw.randint(1, 6)))  # noqa: E731
    prompt, better, worse = f"{words()} {number}", f"yes {words()}", f"no {words()}"
    if form == "facts":
        stated = {"margin": draw.choice([0.5, 1.25]), "weight": draw.choice([0.1, 2]), "group": f"g{number // 2}"}
        return {"prompt": prompt, "chosen": better, "rejected": worse} | stated
    if form == "messages":
        said = [{"role": "user", "content": prompt}]
        sides = {
            name: [{"role": "assistant", "content": text}] for name, text in (("chosen", better), ("rejected", worse))
        }
        return {"prompt": said, **sides}
    if form == "rated":
        scores = [{"response": f"{words()} {k}", "overall_score": draw.randint(1, 5)} for k in range(4)]
        return {"instruction": prompt, "completions": scores}
    if form == "thumbs":
        return {"prompt": [{"role": "user", "content": prompt}], "label": number % 2 == 0,
                "completion": [{"role": "assistant", "content": better}]}  # fmt: skip
    return {"prompt": prompt, "chosen": better, "rejected": worse}


SPOILT = ["{\n", "\u2028{}", '{"prompt": "\ud83d", "chosen": "a", "rejected": "b"}',
          '{"prompt": "p", "chosen": "", "rejected": "b"}',
          '{"prompt": "' + "the dog " * 300 + '", "chosen": "a", "rejected": "b"}',
          '{"prompt": "t", "chosen": "a", "rejected": "b", "score_chosen": 1, "score_rejected": 1}']  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(
    form=st.sampled_from(["plain", "facts", "messages", "rated", "thumbs"]),
    pairing=st.sampled_from(["best_worst", "all", "best_random"]),
    apart=st.booleans(),
    set_aside=st.sampled_from([0.0, 0.3]),
    max_pairs=st.sampled_from([None, 40]),
    truncation=st.sampled_from(["drop", "prompt_start"]),
    heldout=st.booleans(),
    barred=st.booleans(),
    spoilt=st.lists(st.sampled_from(SPOILT), max_size=4),
    seed=st.integers(0, 999),
)
def test_what_comes_back_is_equal_whatever_the_data(tokenizer, tmp_path_factory, form, pairing, apart, seed, **asked):
    folder, draw = tmp_path_factory.mktemp("data"), random.Random(seed)
    made = [json.dumps(_judged(draw, form, number)) + "\n" for number in range(60)]
    spoilt, with_heldout, with_barred = (asked.pop(name) for name in ("spoilt", "heldout", "barred"))
    (folder / "train.jsonl").write_text("".join([*made, *spoilt]), encoding="utf-8", errors="surrogatepass")
    settings = {"train": str(folder / "train.jsonl"), "pairing": "none" if apart and form == "thumbs" else pairing}
    if with_heldout:
        held = [json.dumps(_judged(draw, form, number)) + "\n" for number in range(50, 75)]
        (folder / "other.jsonl").write_text("".join(held), encoding="utf-8")
        settings["heldout"] = str(folder / "other.jsonl")
    if with_barred:
        settings["heldout_prompts"] = saved(folder / "barred.jsonl", [{"prompt": "the cat 1"}, {"prompt": "x"}])
    data = DataConfig(
        **settings, **asked, heldout_share=0.4, max_length=64, max_dropped_share=1.0, store=str(folder / "store")
    )
    heard = Heard()
    try:
        fresh = prepare(data, renderer_of(tokenizer, data))
    except DataError as refused:
        with pytest.raises(DataError, match=re.escape(str(refused))):
            prepared(data, renderer_of(tokenizer, data), heard)
        assert not (folder / "store").exists()
        return
    first, second = (prepared(data, renderer_of(tokenizer, data), heard) for _ in range(2))
    assert len(heard.said) == 1
    assert equal(fresh, first)
    assert equal(fresh, second)
    shutil.rmtree(folder)


def test_what_came_back_outlives_its_entry(started, tmp_path):
    first, *_ = started()
    again, *_ = started()
    shutil.rmtree(tmp_path / "store")
    assert equal(first, again)


def test_tables_that_outgrow_memory_come_back_equal(started, monkeypatch):
    monkeypatch.setattr("tiebreak.data.scratch._WRITE_BYTES", 64)
    for name in ("tokens.TokenSink", "spool.PairSink"):
        monkeypatch.setattr(f"tiebreak.data.{name}.__init__.__defaults__", (None, 64), raising=True)
    first, *_ = started(heldout_share=0.5)
    again, _, read = started(heldout_share=0.5)
    assert not read
    assert equal(first, again)


def test_files_that_moved_are_the_same_and_are_called_by_where_they_are(started, tmp_path, file):
    first, *_ = started()
    (tmp_path / "elsewhere").mkdir()
    moved = shutil.move(file, tmp_path / "elsewhere" / "train.jsonl")
    again, _, read = started(train=str(moved))
    assert not read
    assert again.report["files"][0]["path"] == str(moved)
    assert first.report["files"][0] == again.report["files"][0] | {"path": file}


# --------------------------------------------------------------------------------------------------------- what changed


def test_other_bytes_under_the_same_name_size_and_time_are_seen(started, file):
    started()
    path, before = Path(file), Path(file).stat()
    path.write_bytes(path.read_bytes().replace(b"yes 3", b"yes 4"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert started()[2]


@pytest.mark.parametrize(
    "changed",
    [{"max_length": 127}, {"heldout_share": 0.2}, {"truncation": "prompt_start"}, {"set_aside": 0.3}, {"max_pairs": 30},
     {"min_margin": 0.5}, {"max_dropped_share": 0.2}, {"allow": ("not_rendered",)}, {"pairing": "all"},
     {"columns": {"prompt": "prompt", "chosen": "rejected", "rejected": "chosen"}}],
    ids=lambda changed: next(iter(changed)),
)  # fmt: skip
def test_other_settings_are_other_data(started, tokenizer, file, changed):
    started()
    again, _, read = started(**changed)
    assert read
    data = DataConfig(**{"train": file, "max_length": 128} | changed)
    assert equal(prepare(data, renderer_of(tokenizer, data)), again)


def test_every_setting_of_data_but_places_is_part_of_what_an_entry_is_of():
    left_out = {*DataConfig.model_fields} - {*DataConfig().placeless}
    assert left_out == {"train", "heldout", "heldout_prompts", "store"}


def test_the_weight_and_the_side_of_a_file_are_part_of_it(started, tmp_path, file):
    other = saved(tmp_path / "other.jsonl", rows(20, start=100))
    started(train=({"path": file}, {"path": other}))
    assert started(train=({"path": file, "weight": 2.0}, {"path": other}))[2]
    assert started(train=({"path": other}, {"path": file}))[2]
    assert started(train=file, heldout=other)[2]
    assert started(train=other, heldout=file)[2]
    assert not started(train=({"path": file}, {"path": other}))[2]


def test_prompts_that_nothing_is_trained_on_are_part_of_it(started, tmp_path):
    barred = saved(tmp_path / "barred.jsonl", [{"prompt": "the cat 1"}])
    started(heldout_prompts=barred)
    assert not started(heldout_prompts=barred)[2]
    saved(tmp_path / "barred.jsonl", [{"prompt": "the cat 2"}])
    assert started(heldout_prompts=barred)[2]


def test_a_renderer_is_its_tokenizer_template_limits_and_day(tokenizer):
    data = DataConfig(max_length=128)
    told = renderer_of(tokenizer, data).identity
    assert told == renderer_of(tokenizer, data).identity
    own = copy.deepcopy(tokenizer)
    assert renderer_of(own, data).identity == told
    assert Renderer(own, (0, own.eos_token_id), data).identity != told
    assert renderer_of(own, data, positions=64).identity != told
    assert renderer_of(own, data.model_copy(update={"max_length": 64})).identity != told
    assert renderer_of(own, data, now=datetime(2026, 1, 1)).identity != told
    own.chat_template += " "
    assert renderer_of(own, data).identity != told
    own = copy.deepcopy(tokenizer)
    own.add_tokens(["park"])
    assert renderer_of(own, data).identity != told


def test_where_a_template_reads_the_clock_and_no_day_is_set_nothing_is_kept(tokenizer):
    own = copy.deepcopy(tokenizer)
    own.chat_template += "{{ strftime_now('%H') }}"
    assert renderer_of(own, DataConfig()).identity is None
    days = {renderer_of(own, DataConfig(), now=datetime(2026, 1, day)).identity for day in (1, 2)}
    assert len(days) == 2
    assert None not in days


def test_files_that_change_while_they_are_read_are_not_kept(tokenizer, tmp_path, file, monkeypatch):
    def changing(*args):
        found = prepare(*args)
        saved(Path(file), rows(50))
        return found

    monkeypatch.setattr(ready_made, "prepare", changing)
    data = DataConfig(train=file, max_length=128, store=str(tmp_path / "store"))
    assert len(prepared(data, renderer_of(tokenizer, data)).train) < 41
    assert not (tmp_path / "store").exists()


def test_a_file_that_is_replaced_after_its_form_was_seen_is_kept_under_no_name_that_a_start_would_look_for(
    started, tmp_path, file, monkeypatch
):
    def replaced(data):
        found = open_data(data)
        saved(Path(file), [{"prompt": f"the cat {n}", "completion": "yes", "label": n % 2 == 0} for n in range(60)])
        return found

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(ready_made, "open_data", replaced)
        with contextlib.suppress(DataError):
            started(max_dropped_share=1.0)
    wanted, *_ = started(pairing="none", store="off")
    found, _, read = started(pairing="none")
    assert read
    assert equal(found, wanted)


def test_a_file_that_goes_while_it_is_read_ends_no_start(tokenizer, tmp_path, file, monkeypatch):
    def vanishing(*args):
        found = prepare(*args)
        Path(file).unlink()
        return found

    monkeypatch.setattr(ready_made, "prepare", vanishing)
    data = DataConfig(train=file, max_length=128, store=str(tmp_path / "store"))
    assert len(prepared(data, renderer_of(tokenizer, data)).train) < 41
    assert not (tmp_path / "store").exists()


def test_what_code_made_that_is_not_on_the_disk_any_more_is_not_kept(started, tmp_path, monkeypatch):
    with monkeypatch.context() as younger:
        younger.setattr(cache, "LOADED", 0.0)
        assert started()[2]
    with monkeypatch.context() as other:
        other.setattr(cache, "_code_on_disk", lambda: "other")
        assert started()[2]
    assert not (tmp_path / "store").exists()


def test_a_store_among_the_data_is_no_data(started, tmp_path, file):
    (folder := tmp_path / "data").mkdir()
    shutil.copy(file, folder / "train.jsonl")
    for train in (str(folder), f"{folder}/*", f"{folder}/**/*.jsonl"):
        for store in (folder / "store", folder):
            first, *_ = started(train=train, store=str(store))
            second, _, again = started(train=train, store=str(store))
            assert not again
            assert first.report["num_records"] == second.report["num_records"] == 41


# ------------------------------------------------------------------------------------------------------------- others'


def test_entries_are_their_owner_s_alone_and_git_leaves_them_out(started, tmp_path):
    before = os.umask(0)
    try:
        started()
    finally:
        os.umask(before)
    found = entry(tmp_path)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (found.parent, found)} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in found.iterdir()} == {0o600}
    assert (found.parent / ".gitignore").read_text() == "*\n"


@pytest.mark.parametrize("name", ["", "train.arrow", "entry.json"])
def test_what_others_could_have_written_is_not_believed(started, tmp_path, name):
    started()
    (entry(tmp_path) / name).chmod(0o770)
    _, said, read = started()
    assert read
    assert "could be written by others" in said[0]
    assert not started()[2]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_is_somebody_else_s_is_not_believed_and_not_counted(started, tmp_path, monkeypatch):
    started()
    os.chown(entry(tmp_path) / "train.arrow", 12345, -1)
    _, said, read = started()
    assert read
    assert "is somebody else's" in said[0]
    shutil.copytree(entry(tmp_path), theirs := tmp_path / "store" / (".tokens-" + "0" * 32))
    os.chown(theirs, 12345, -1)
    size = sum(file.stat().st_size for file in theirs.iterdir())
    monkeypatch.setattr(cache.Cache.__init__, "__defaults__", (int(1.5 * size),))
    _, said, read = started(max_length=127)
    assert read
    assert len(said) == 1
    assert theirs.exists()


def test_an_entry_of_one_user_is_none_of_another(started, tmp_path, monkeypatch):
    started()
    uid = os.geteuid()
    monkeypatch.setattr(cache.os, "geteuid", lambda: uid + 1)
    assert started()[2]


def test_tokens_of_another_fingerprint_are_not_believed_whatever_is_sealed(started, tmp_path):
    first, *_ = started()
    found = entry(tmp_path)
    shutil.copy(found / "heldout.arrow", found / "train.arrow")
    told = json.loads((found / "entry.json").read_bytes().partition(b"\n")[2])
    told["files"]["train.arrow"] = seal_of_file(found / "train.arrow")
    text = json.dumps(told).encode()
    (found / "entry.json").write_bytes(cache._seal(text) + b"\n" + text + b"\n")
    again, said, read = started()
    assert read
    assert "not of the fingerprint" in said[0]
    assert equal(first, again)


def test_a_read_error_throws_nothing_away(started, tmp_path, monkeypatch):
    started()
    with monkeypatch.context() as worn:
        worn.setattr(ready_made, "read_table", _raised(OSError(errno.EMFILE, "Too many open files")))
        _, said, read = started()
    assert read
    assert said[0].endswith("cannot be read ([Errno 24] Too many open files); prepared tokens are made anew")
    assert not started()[2]


def test_an_entry_that_cannot_be_removed_is_not_said_to_be(started, tmp_path, monkeypatch):
    started()
    size = sum(file.stat().st_size for file in entry(tmp_path).iterdir())
    monkeypatch.setattr(cache.Cache.__init__, "__defaults__", (int(1.5 * size),))
    monkeypatch.setattr(Path, "rename", _not_of_entries(Path.rename))
    _, said, _ = started(max_length=127)
    assert said == []
    assert len(kept(tmp_path / "store")) == 2


def _raised(error):
    def fail(*_, **__):
        raise error

    return fail


def _not_of_entries(rename):
    def fail(path, target):
        if path.name.startswith(".tokens-"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return rename(path, target)

    return fail


# -------------------------------------------------------------------------------------------------------------- damaged


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)


DAMAGE = {
    "flipped": _flipped,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "emptied": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "a link": lambda path: (shutil.move(path, path.with_suffix(".away")), path.symlink_to(path.with_suffix(".away"))),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["entry.json", "train.arrow", "heldout.arrow", "heldout-texts.arrow", "dropped.jsonl"])
def test_an_entry_that_is_not_what_was_written_is_told_thrown_away_and_made_anew(started, tmp_path, name, damage):
    first, *_ = started()
    if (name, damage) == ("entry.json", "a link"):
        return  # what it leads to is proven all the same
    DAMAGE[damage](entry(tmp_path) / name)
    again, said, read = started()
    assert read
    assert len(said) == 1
    assert f"{entry(tmp_path)}: is not what was written (" in said[0]
    assert said[0].endswith("; prepared tokens are made anew")
    assert equal(first, again)
    third, said, read = started()
    assert not read
    assert equal(first, third)
    assert kept(tmp_path / "store") == [entry(tmp_path)]


def test_an_entry_under_another_name_is_not_believed(started, tmp_path):
    started()
    old = entry(tmp_path)
    kept = tmp_path / "kept"
    old.rename(kept)
    started(max_length=100)
    wanted = entry(tmp_path)
    shutil.rmtree(wanted)
    kept.rename(wanted)
    _, said, read = started(max_length=100)
    assert read
    assert "of other data or settings" in said[0]


def test_an_entry_of_another_schema_or_of_other_code_is_not_read(started, monkeypatch):
    started()
    with monkeypatch.context() as other:
        other.setattr(cache, "SCHEMA", cache.SCHEMA + 1)
        assert started()[2]
    assert not started()[2]
    with monkeypatch.context() as other:
        other.setattr(cache, "code", lambda: "other")
        assert started()[2]


def test_the_code_is_all_of_ours_by_its_text():
    assert cache.code() == cache.code()
    assert len(cache.code()) == 64


@pytest.mark.parametrize("what", ["a file in its place", "a full disk", "a folder that cannot be made"])
def test_where_nothing_can_be_kept_it_is_one_line_and_goes_on(started, tmp_path, what):
    store = tmp_path / "store"
    if what == "a full disk":
        faults.arm("full@store:data")
    elif what == "a file in its place":
        store.write_text("mine")
    else:
        store.symlink_to(tmp_path / "nowhere" / "at all")
    try:
        found, said, read = started()
    finally:
        faults.arm(None)
    assert read
    assert len(said) == 1
    assert "prepared tokens cannot be kept (" in said[0]
    assert found.report["num_train_pairs"]
    assert what != "a full disk" or kept(store) == []


def test_a_process_that_was_faster_has_its_entry_and_nobody_minds(started, tmp_path, tokenizer, file):
    found: list[PreparedData] = []
    heard = Heard()
    data = DataConfig(train=file, max_length=128, store=str(tmp_path / "store"))

    def start():
        found.append(prepared(data, renderer_of(tokenizer, data), heard))

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert equal(*found)
    assert [line for line in heard.said if "cannot" in line or "not what" in line] == []
    assert kept(tmp_path / "store") == [entry(tmp_path)]


# ------------------------------------------------------------------------------------------------------- how much, when


def test_auto_keeps_what_took_long_in_the_users_cache_and_nothing_small(started, tmp_path, monkeypatch):
    monkeypatch.setattr(cache.platformdirs, "user_cache_path", lambda name: tmp_path / "home" / name)
    monkeypatch.setattr(cache, "WORTH_SECONDS", 0.0)
    assert started(store="auto")[2]
    assert started(store="auto")[2]
    monkeypatch.setattr(cache, "WORTH_BYTES", 0)
    monkeypatch.setattr(cache, "WORTH_SECONDS", 3600.0)
    assert started(store="auto")[2]
    assert not (tmp_path / "home").exists()
    monkeypatch.setattr(cache, "WORTH_SECONDS", 0.0)
    assert started(store="auto")[2]
    assert not started(store="auto")[2]
    assert len(kept(tmp_path / "home" / "tiebreak" / "prepared")) == 1


def test_off_keeps_and_reads_nothing(started, tmp_path):
    started()
    assert started(store="off")[2]
    assert len(kept(tmp_path / "store")) == 1


def test_what_was_not_used_for_longest_goes_first_and_is_told(started, tmp_path, monkeypatch):
    store = tmp_path / "store"
    lengths = (128, 127, 126)
    paths = []
    for number, length in enumerate(lengths):
        started(max_length=length)
        [new] = {*kept(store)} - {*paths}
        paths.append(new)
        os.utime(new / "entry.json", (1000 + number, 1000 + number))
    started(max_length=128)  # used last now
    size = sum(file.stat().st_size for file in paths[0].iterdir())
    monkeypatch.setattr(cache.Cache.__init__, "__defaults__", (int(3.2 * size),))
    _, said, _ = started(max_length=125)
    assert {*kept(store)} >= {paths[0], paths[2]}
    assert not paths[1].exists()
    assert len(said) == 1
    assert "1 entries that were not used for longest are removed" in said[0]


def test_what_is_larger_than_all_may_be_is_not_kept(started, tmp_path, monkeypatch):
    monkeypatch.setattr(cache.Cache.__init__, "__defaults__", (100,))
    _, said, _ = started()
    assert len(said) == 1
    assert "more than the" in said[0]
    assert kept(tmp_path / "store") == []


def test_leftovers_of_the_dead_go_after_a_day(started, tmp_path):
    store = tmp_path / "store"
    for name, age in (("..tokens-1.abc.tiebreak-part", 2 * 86400), ("..tokens-2.abc.tiebreak-part", 60)):
        (store / name).mkdir(parents=True)
        (store / name / "train.arrow").write_bytes(b"torn")
        when = (store / name).stat().st_mtime - age
        os.utime(store / name, (when, when))
    started()
    assert [path.name for path in store.glob("..*")] == ["..tokens-2.abc.tiebreak-part"]


def test_a_process_that_is_killed_while_it_writes_leaves_nothing_that_is_believed(started, tmp_path, tiny_model, file):
    code = (
        "import sys\nfrom transformers import AutoTokenizer\nfrom tiebreak import faults\n"
        "from tiebreak.config import DataConfig\nfrom tiebreak.data.ready_made import ready_made\n"
        "from tiebreak.data.render import Renderer\nmodel, file, store = sys.argv[1:]\n"
        "tokenizer = AutoTokenizer.from_pretrained(model)\nfaults.arm('kill@store:data')\n"
        "data = DataConfig(train=file, max_length=128, store=store)\n"
        "ready_made(data, Renderer(tokenizer, (tokenizer.eos_token_id,), data))\n"
    )
    words = [sys.executable, "-c", code, str(tiny_model), file, str(tmp_path / "store")]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == -9, ended.stderr
    [left] = kept(tmp_path / "store")
    assert left.name.startswith(".")
    assert (left / "train.arrow").stat().st_size
    _, said, read = started()
    assert (said, read) == ([], True)
    assert not started()[2]


def test_packed_files_are_known_by_their_bytes(started, tmp_path):
    path = tmp_path / "train.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows(40)).encode()))
    started(train=str(path))
    assert not started(train=str(path))[2]
