"""Keys: a digest alone is kept, and quotas are held."""

from __future__ import annotations

import re
import sqlite3
import threading

import pytest

from served import settings_of
from tiebreak.errors import ConfigError, RunError
from tiebreak.service import jobs, keys, shelf
from tiebreak.service.refusals import Refusal
from tiebreak.service.store import now, open_store


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "service")


def created(store, key):
    body = {"model": "tiny", "training_file": "file-1"}
    return jobs.create(store, key.id, body, {"seed": 1, "method": "dpo", "hyperparameters": {}})


def kept(store, key, tmp_path, size=10, expires=None):
    (tmp_path / "source").write_bytes(b"x" * size)
    return shelf.keep(store, key.id, "fine-tune", "a.jsonl", tmp_path / "source", expires=expires)


def test_a_secret_has_256_random_bits_and_is_kept_nowhere(store):
    key, token = keys.add(store, "me")
    assert re.fullmatch(r"tbk-[A-Za-z0-9_-]{43}", token)
    everything = b"".join(path.read_bytes() for path in store.folder.rglob("*") if path.is_file())
    assert token.encode() not in everything
    assert token[4:].encode() not in everything
    assert keys.holder(store, token) == key


def test_only_the_whole_secret_of_a_key_in_use_is_one(store):
    _, token = keys.add(store, "me")
    for wrong in ("", token[:-1], token + "x", token.upper(), "tbk-", "\udcff", "x" * 100_000, token + "\0"):
        assert keys.holder(store, wrong) is None
    revoked = keys.revoke(store, "me")
    assert revoked.revoked >= now() - 5
    assert keys.holder(store, token) is None
    assert [one.revoked is None for one in keys.listed(store)] == [False]


def test_a_name_belongs_to_one_key_in_use(store):
    keys.add(store, "me")
    with pytest.raises(RunError, match="'me' is in use"):
        keys.add(store, "me")
    keys.revoke(store, "me")
    keys.add(store, "me")
    with pytest.raises(RunError, match="'keys list'"):
        keys.revoke(store, "you")


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 65, " a", "\x1b[2J"])
def test_a_name_that_could_not_be_shown_is_refused(store, name):
    with pytest.raises(ConfigError, match="64 characters"):
        keys.add(store, name)


def test_a_key_has_its_own_quotas_and_those_of_all_where_it_has_none(store):
    key, token = keys.add(store, "me", {"jobs_a_day": 3})
    settings = settings_of(quotas={"gb": 2.0, "jobs_a_day": 7})
    found = keys.quotas_of(keys.holder(store, token), settings)
    assert (found.jobs_a_day, found.gb) == (3, 2.0)
    assert key.as_dict()["quotas"] == {"jobs_a_day": 3}
    with pytest.raises(ConfigError, match=r"quotas\.jobs"):
        keys.add(store, "you", {"jobs": 3})
    with pytest.raises(ConfigError, match=r"quotas\.gb"):
        keys.add(store, "you", {"gb": -1})


def test_a_full_queue_is_to_be_asked_again_and_a_used_up_quota_is_not(store):
    key, other = keys.add(store, "me")[0], keys.add(store, "you")[0]
    settings = settings_of(limits={"queue": 3}, quotas={"jobs_at_once": 2, "jobs_a_day": 4})
    keys.require_job(store, key, settings)
    first, second = created(store, key), created(store, key)
    with pytest.raises(Refusal, match="2 at once") as refused:
        keys.require_job(store, key, settings)
    assert refused.value.status == 429
    assert refused.value.code == "rate_limit_exceeded"
    assert refused.value.headers == {"x-should-retry": "false"}
    created(store, other)
    with pytest.raises(Refusal, match="3 jobs wait") as refused:
        keys.require_job(store, other, settings)
    assert int(refused.value.headers["retry-after"]) > 0
    for job in (first, second):
        jobs.cancel(store, job)
    keys.require_job(store, key, settings)
    for _ in range(2):
        jobs.cancel(store, created(store, key))
    with pytest.raises(Refusal, match="4 jobs in 24 hours") as refused:
        keys.require_job(store, key, settings)
    assert refused.value.body["error"]["code"] == "insufficient_quota"
    assert refused.value.headers == {"x-should-retry": "false"}
    store.change("update jobs set created = created - ?", keys.DAY + 1)
    keys.require_job(store, key, settings)


def test_many_creates_at_once_do_not_pass_a_quota_together(store):
    key = keys.add(store, "me")[0]
    settings = settings_of(quotas={"jobs_at_once": 5})
    refused = []

    def create():
        try:
            with store.writing():
                keys.require_job(store, key, settings)
                created(store, key)
        except Refusal as refusal:
            refused.append(refusal)

    threads = [threading.Thread(target=create) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.row("select count(*) from jobs")[0] == 5
    assert len(refused) == 15


def test_bytes_that_are_kept_count_and_those_that_are_gone_do_not(store, tmp_path):
    key, other = keys.add(store, "me")[0], keys.add(store, "you")[0]
    file = kept(store, key, tmp_path, 10_000)
    kept(store, key, tmp_path, 1)
    kept(store, other, tmp_path, 50_000)
    assert keys.held_bytes(store, key) == 10_000 + keys.BLOCK
    store.insert(
        "uploads",
        {
            "id": "upload_1", "key": key.id, "purpose": "fine-tune", "filename": "a", "bytes": 9_000,
            "mime_type": "a/b", "status": "pending", "created": now(), "expires": now() + 100,
        },
    )  # fmt: skip
    store.insert("parts", {"id": "part_1", "upload": "upload_1", "bytes": 9_000, "sha256": "", "created": now()})
    assert keys.held_bytes(store, key) == 19_000 + keys.BLOCK
    store.change("update uploads set expires = ?", now() - 1)
    shelf.delete(store, file)
    assert keys.held_bytes(store, key) == keys.BLOCK
    store.change("update files set expires = ?", now() - 1)
    assert keys.held_bytes(store, key) == 0
    settings = settings_of(quotas={"gb": 1e-5})
    keys.require_bytes(store, key, settings, 10_000)
    with pytest.raises(Refusal, match="1e-05 GB"):
        keys.require_bytes(store, key, settings, 11_000)


def test_bytes_that_come_in_at_the_same_time_count_together(store):
    key = keys.add(store, "me")[0]
    settings, meters = settings_of(quotas={"gb": 1e-3}), keys.Meters()
    most = int(1e-3 * keys.GB)
    with meters.coming(key, settings, held=100) as one:
        one(most // 2)
        with meters.coming(key, settings, held=0) as two:
            two(most - most // 2)
            with pytest.raises(Refusal, match="may keep"):
                two(1)
        with pytest.raises(Refusal):
            one(most // 2 + 100)
        one(most // 2 - 100)
    with meters.coming(key, settings, held=0) as again:
        again(most)


def test_tokens_of_a_minute_are_booked_before_and_settled_after(store, monkeypatch):
    at = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: at[0])
    key, other = keys.add(store, "me")[0], keys.add(store, "you")[0]
    settings, meters = settings_of(quotas={"tokens_a_minute": 100}), keys.Meters()
    taken = meters.take_tokens(key, settings, 60)
    with pytest.raises(Refusal) as refused:
        meters.take_tokens(key, settings, 50)
    assert refused.value.retry_after == 61
    meters.settle_tokens(taken, 20)
    at[0] += 30
    meters.take_tokens(key, settings, 80)
    meters.take_tokens(other, settings, 100)
    with pytest.raises(Refusal) as refused:
        meters.take_tokens(key, settings, 20)
    assert refused.value.retry_after == 31
    at[0] += 31
    meters.take_tokens(key, settings, 20)
    with pytest.raises(Refusal, match="ask for fewer") as refused:
        meters.take_tokens(key, settings, 101)
    assert refused.value.headers == {"x-should-retry": "false"}


def test_no_two_keys_have_one_digest(store):
    _, token = keys.add(store, "me")
    row = store.row("select sha256 from keys")
    with pytest.raises(sqlite3.IntegrityError):
        store.insert("keys", {"id": "key-2", "name": "you", "sha256": row[0], "created": 1, "quotas": "{}"})
    assert keys.holder(store, token).name == "me"


def test_a_key_that_is_rotated_keeps_what_is_its_own_and_its_old_secret_is_none(store):
    key, old = keys.add(store, "rotated")
    again, new = keys.rotate(store, "rotated")
    assert (again.id, again.name) == (key.id, key.name)
    assert keys.holder(store, old) is None
    assert keys.holder(store, new) == again
    with pytest.raises(RunError, match="no key in use"):
        keys.rotate(store, "nobody")
