"""Files that are kept: whole, private, and gone when they are deleted."""

from __future__ import annotations

import hashlib
import os

import pytest
from openai.types import FileObject

from served import fill, settings_of
from tiebreak.service import retention, shelf
from tiebreak.service.refusals import Refusal
from tiebreak.service.store import now, open_store


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "service")


def kept(store, content=b"abc\n", key="key-1", name="a.jsonl", purpose="fine-tune", expires=None):
    source = store.folder / "source"
    source.write_bytes(content)
    return shelf.keep(store, key, purpose, name, source, expires=expires)


def test_a_kept_file_is_a_copy_that_its_owner_alone_reads(store):
    content = os.urandom(3 * shelf.CHUNK + 17)
    file = kept(store, content)
    (store.folder / "source").write_bytes(b"changed")
    path = shelf.path_of(store, file)
    assert path.read_bytes() == content
    assert path.stat().st_mode & 0o077 == 0
    assert (file.bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert [*store.files_folder.glob(".*")] == []


def test_a_file_is_shown_as_the_clients_own_type_wants_it(store):
    told = shelf.shown(kept(store, expires=now() + 4000))
    strict = FileObject.model_validate(told, strict=True)
    assert strict.to_dict(exclude_unset=False) == told
    assert set(told) == set(FileObject.model_fields)


def test_a_file_of_another_and_one_that_is_not_there_look_alike(store):
    file = kept(store)
    for name, key in ((file.id, "key-2"), ("file-none", "key-1"), ("", "key-1"), ("../service.db", "key-1")):
        with pytest.raises(Refusal) as refused:
            shelf.find(store, name, key)
        assert refused.value.status == 404
        assert str(refused.value) == f"No file with the id {name!r} was found."
    assert shelf.find(store, file.id, "key-1") == shelf.find(store, file.id) == file


def test_bytes_of_a_deleted_file_go_and_a_second_name_of_them_stays(store):
    file = kept(store)
    second = store.folder / "training.jsonl"
    os.link(shelf.path_of(store, file), second)
    shelf.delete(store, file)
    assert not shelf.path_of(store, file).exists()
    assert second.read_bytes() == b"abc\n"
    with pytest.raises(Refusal):
        shelf.find(store, file.id)
    assert store.row("select deleted from files")["deleted"] is not None
    shelf.delete(store, file)


@pytest.mark.parametrize("is_linked", [False, True])
@pytest.mark.parametrize("makes_room", [False, True])
def test_on_a_full_disk_a_file_can_be_deleted_and_is_gone_with_its_bytes(store, monkeypatch, is_linked, makes_room):
    """Also where a job has the same bytes under another name: deleting them makes no room then."""
    file, other = kept(store), kept(store)
    path, second = shelf.path_of(store, file), store.folder / "training.jsonl"
    if is_linked:
        os.link(path, second)
    with monkeypatch.context() as patch:
        fill(patch, room=lambda: makes_room and not path.exists())
        shelf.delete(store, file)
        assert not path.exists()
        with pytest.raises(Refusal, match="No file"):
            shelf.find(store, file.id, "key-1")
        assert [one.id for one in shelf.listed(store, "key-1")[0]] == [other.id]
    assert second.exists() == is_linked
    retention.sweep(store, settings_of())
    assert [row["id"] for row in store.rows("select * from files where deleted is null")] == [other.id]


def test_files_whose_folder_is_not_there_at_the_moment_are_not_taken_for_deleted(store):
    file, away = kept(store), store.folder / "away"
    store.files_folder.rename(away)
    store.files_folder.mkdir()
    assert retention.sweep(store, settings_of()) == []
    store.files_folder.rmdir()
    away.rename(store.files_folder)
    assert shelf.find(store, file.id) == file


def test_an_expired_file_is_as_a_deleted_one(store):
    file = kept(store, expires=now() + 100)
    assert shelf.find(store, file.id)
    store.change("update files set expires = ?", now())
    with pytest.raises(Refusal):
        shelf.find(store, file.id)
    assert shelf.listed(store, "key-1")[0] == []


def test_pages_hold_every_file_once_in_both_orders(store):
    files = [kept(store, key="key-1", purpose="fine-tune" if at % 2 else "fine-tune-results") for at in range(7)]
    kept(store, key="key-2")
    shelf.delete(store, files[3])
    wanted = [file.id for file in files if file != files[3]]
    for order, ids in (("asc", wanted), ("desc", wanted[::-1])):
        for limit in (1, 2, 3, 6, 7):
            seen, after, more = [], None, True
            while more:
                found, more = shelf.listed(store, "key-1", order=order, limit=limit, after=after)
                seen += [file.id for file in found]
                after = seen[-1]
            assert seen == ids
    assert [file.id for file in shelf.listed(store, "key-1", after=files[3].id)[0]] == [f.id for f in files[2::-1]]
    assert {file.purpose for file in shelf.listed(store, "key-1", purpose="fine-tune")[0]} == {"fine-tune"}
    with pytest.raises(Refusal, match="after"):
        shelf.listed(store, "key-2", after=files[0].id)


def test_what_fails_leaves_neither_a_row_nor_bytes(store):
    with pytest.raises(FileNotFoundError):
        shelf.keep(store, "key-1", "fine-tune", "a", store.folder / "none")
    store.connection.execute("create trigger t before insert on files begin select raise(abort, 'no'); end")
    with pytest.raises(Exception, match="no"):
        kept(store)
    assert [*store.files_folder.iterdir()] == []
    assert store.rows("select * from files") == []


@pytest.mark.parametrize(
    "name", ["a.jsonl", "ein schöner Name.jsonl", "日本語", "a'b\"c;d.jsonl", "fam👩\u200d👧.txt", "x" * 255]
)
def test_names_that_can_be_read_are_taken_as_they_are(name):
    shelf.require_name(name, "file")


@pytest.mark.parametrize(
    "name",
    ["", "x" * 256, "../a", "/etc/passwd", "a\\b", ".", "..", "a\0b", "a\nb", "a\rb", "a\x7f", "\x1b[31m",
     "a\u202egnp.exe", "\u2066a", "a\u200bb", "a\u2028b", "\ufeffa", "\ud800"],
)  # fmt: skip
def test_names_that_lead_elsewhere_or_hide_something_are_refused(name):
    with pytest.raises(Refusal) as refused:
        shelf.require_name(name, "file")
    assert refused.value.status == 400
    assert refused.value.param == "file"
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300
