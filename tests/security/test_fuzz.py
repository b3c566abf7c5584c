"""Promise: whatever a file holds gives an answer or one line, never a stack trace. Containers have their own fuzz."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bounds import examples, hang_after
from tiebreak.config import Config, DataConfig, leaves, load_config
from tiebreak.data.render import Renderer
from tiebreak.data.whole import PairFile, read_pairs
from tiebreak.errors import EXIT_FAILED, EXIT_INCONCLUSIVE, EXIT_USAGE, ConfigError, DataError, RenderError
from tiebreak.records import Message, Pair, TokenizedPair
from tiebreak.runs import Run
from tiny import unsealed

QUICK = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]}
HARD = [
    None, True, 0, -1, 1e308, -1e-320, 10**40, float("nan"), float("inf"), "", "\ud800", "\x00\x1b[31m", "a" * 5000,
    [], {}, [[]], [None], {"": None}, [[[[[[[[[[]]]]]]]]]], "../../etc/passwd", {"mean": "x"},
    -(2**63), "1e999", "nan", "NaN",
]  # fmt: skip
JSON = st.recursive(
    st.sampled_from(HARD) | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def _paths(value, prefix=()):
    """Every place in a JSON value."""
    yield prefix
    items = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, item in items:
        yield from _paths(item, (*prefix, key))


def _changed(value, path, new):
    if not path:
        return new
    value = copy.copy(value)
    value[path[0]] = _changed(value[path[0]], path[1:], new)
    return value


@st.composite
def spoiled(draw, value):
    """A JSON value that is right but in a few places, or none of it."""
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(_paths(value))))
        value = _changed(value, path, draw(JSON))
        if draw(st.booleans()) and isinstance(value, dict) and value:
            key = draw(st.sampled_from(sorted(value, key=str)))
            value = {name: item for name, item in value.items() if name != key}
    return value


def _answered(answer, codes=(0, 1, 2)) -> None:
    code, out, err = answer
    assert "Traceback" not in out + err
    assert code in codes, err
    if code not in (0, EXIT_FAILED, EXIT_INCONCLUSIVE):
        assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1, err


# -------------------------------------------------------------------------------------------------------- configuration

KEYS = [key for key, _ in leaves()]


@settings(max_examples=150, **QUICK)
@given(st.data())
def test_any_configuration_is_read_or_refused_in_one_line(tmp_path, data):
    tree = {}
    for key in data.draw(st.lists(st.sampled_from(KEYS), max_size=4)):
        section, _, name = key.partition(".")
        tree.setdefault(section, {})[name] = data.draw(JSON)
    tree = data.draw(st.just(tree) | spoiled(tree))
    path = tmp_path / "my.yaml"
    try:
        path.write_text(
            yaml.safe_dump(tree, allow_unicode=data.draw(st.booleans())), encoding="utf-8", errors="replace"
        )
    except yaml.YAMLError:
        return
    _load(path)


@settings(max_examples=150, **QUICK)
@given(st.binary(max_size=200) | st.text(alphabet="ab:-{}[],&*!|>'\"#%@` \n\t?<0.e~", max_size=80).map(str.encode))
def test_any_bytes_are_a_configuration_or_refused_in_one_line(tmp_path, content):
    path = tmp_path / "my.yaml"
    path.write_bytes(content)
    _load(path)


def _load(path: Path) -> None:
    try:
        assert isinstance(load_config(path), Config)
    except ConfigError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 3000


def _laughs(levels: int, form: str) -> str:
    lines = ["x0: &x0 [a, a]" if form == "list" else "x0: &x0 {k0: a}"]
    for n in range(1, levels):
        inner = ", ".join([f"*x{n - 1}"] * 9)
        lines.append({"list": f"x{n}: &x{n} [{inner}]", "merge": f"x{n}: &x{n} {{<<: [{inner}], k{n}: a}}",
                      "map": f"x{n}: &x{n} {{a: *x{n - 1}, b: *x{n - 1}}}"}[form])  # fmt: skip
    return "\n".join(lines)


@pytest.mark.parametrize("form", ["list", "merge", "map"])
@pytest.mark.parametrize(
    "key", ["model.name", "data.train", "data.columns", "output.trackers", "adapter", "bogus", "model"]
)
def test_a_billion_laughs_are_refused_at_once(tmp_path, form, key):
    section, _, name = key.partition(".")
    path = tmp_path / "my.yaml"
    path.write_text(_laughs(30, form) + f"\n{section}: " + (f"{{{name}: *x29}}" if name else "*x29"))
    _refused(path)


def _refused(path: Path) -> None:
    with hang_after(), pytest.raises(ConfigError) as refusal:
        load_config(path)
    assert len(str(refusal.value)) < 2000


@pytest.mark.parametrize(
    "text",
    ["a: &a [*a]", "&a {model: *a}", "model: " + "[" * 3000 + "]" * 3000, "model: {name: 0x" + "f" * 9000 + "}",
     "training: {epochs: " + "9" * 9000 + "}", "!!python/object/apply:os.system ['true']", "a: !!binary x",
     "model: {name: !!python/name:os.system }", "\n".join(f"k{n}: 1" for n in range(20_000)), "? [a]\n: b", "? {}\n: b",
     "training: {epochs: 010}", "- " * 2000, "a: !!set {b}", "<<: 1", "<<: [1]", "model: {<<: *x}"],
    ids=lambda text: ascii(text[:30]),
)  # fmt: skip
def test_a_hostile_configuration_is_refused_at_once(tmp_path, text):
    path = tmp_path / "my.yaml"
    path.write_text(text)
    _refused(path)


# ----------------------------------------------------------------------------------------------------------- run folder

DOCUMENTS = ("run.json", "data.json", "evaluation.json", "audit.json", "train_prompts.json")
ROWS = (
    "metrics.jsonl", "evidence.jsonl", "samples.jsonl", "measures.jsonl", "dropped.jsonl", "heldout_pairs.jsonl",
)  # fmt: skip


@pytest.fixture(scope="module")
def spoilable(finished, tmp_path_factory):
    """A run whose files are put back after each use."""
    folder = tmp_path_factory.mktemp("spoilable") / "run"
    shutil.copytree(finished, folder)
    shutil.copy(finished.with_name("pairs.jsonl"), folder.with_name("pairs.jsonl"))
    unsealed(Run(folder))  # whoever makes up a folder makes up its digests, too
    (folder / "dropped.jsonl").write_text('{"file": "a", "line": 1, "reason": "tie", "detail": "b"}\n')
    right = {name: (folder / name).read_bytes() for name in (*DOCUMENTS, *ROWS, "config.yaml")}
    return folder, right


def _spoil(folder: Path, right, name: str, data) -> None:
    if name in DOCUMENTS:
        made = json.dumps(data.draw(spoiled(json.loads(right[name]))))
    elif name in ROWS:
        rows = [json.loads(line) for line in right[name].decode().splitlines()] or [{}]
        rows = data.draw(spoiled(rows))
        made = "".join(json.dumps(row) + "\n" for row in (rows if isinstance(rows, list) else [rows]))
    else:
        made = yaml.safe_dump(data.draw(spoiled(yaml.safe_load(right[name]))))
    (folder / name).write_text(made, encoding="utf-8", errors="surrogatepass")


def _restore(folder: Path, right) -> None:
    for name, content in right.items():
        (folder / name).write_bytes(content)


def _ask(command, spoilable, words, data, files=(*DOCUMENTS, *ROWS), codes=(0, 1, 2)) -> None:
    folder, right = spoilable
    names = data.draw(st.lists(st.sampled_from(files), min_size=1, max_size=2, unique=True))
    try:
        for name in names:
            _spoil(folder, right, name, data)
        named = {"RUN": folder, "PAIRS": folder.with_name("pairs.jsonl")}
        _answered(command(*(named.get(word, word) for word in words)), codes)
    finally:
        _restore(folder, right)


@settings(max_examples=examples(30, 300), **QUICK)
@given(st.data())
@pytest.mark.filterwarnings("ignore")  # means of 1e308 warn
def test_any_run_folder_is_judged_or_refused_in_one_line(command, spoilable, data):
    codes = (0, EXIT_USAGE, EXIT_FAILED, EXIT_INCONCLUSIVE)
    _ask(
        command, spoilable, ["gate", "RUN", "--json"], data, ("measures.jsonl", "evaluation.json", "config.yaml"), codes
    )


@settings(max_examples=examples(10, 100), **QUICK)
@given(st.data())
@pytest.mark.filterwarnings("ignore")  # plots of 1e308 warn; nobody is told more than once
@pytest.mark.slow
def test_the_report_of_any_run_folder_is_a_page_or_one_line(command, spoilable, data):
    _ask(command, spoilable, ["report", "RUN"], data)


@pytest.mark.parametrize(
    "words",
    [["evaluate", "RUN", "--quiet"], ["evaluate", "RUN", "--json"], ["evaluate", "RUN", "--data", "PAIRS", "-q"],
     ["chat", "RUN", "-p", "hi", "--max-new-tokens", "2", "--compare"]],
    ids=" ".join,
)  # fmt: skip
@settings(max_examples=examples(5, 50), **QUICK)
@given(data=st.data())
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_any_run_folder_is_evaluated_or_refused_in_one_line(command, spoilable, words, data):
    _ask(command, spoilable, words, data)


@settings(max_examples=examples(6, 60), **QUICK)
@given(data=st.data(), form=st.sampled_from(["merged", "adapter"]))
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_any_run_folder_is_exported_or_refused_in_one_line(command, spoilable, tmp_path, data, form):
    out = tmp_path / "out"
    try:
        _ask(command, spoilable, ["export", "RUN", "--out", str(out), "--form", form, "-q"], data)
    finally:
        shutil.rmtree(out, ignore_errors=True)


@settings(max_examples=examples(8, 80), **QUICK)
@given(data=st.data())
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_any_configuration_in_a_run_folder_is_read_or_refused_in_one_line(command, spoilable, data):
    folder, right = spoilable
    try:
        _spoil(folder, right, "config.yaml", data)
        _answered(command("report", folder))
    finally:
        _restore(folder, right)


# ------------------------------------------------------------------------------------------------------------- readers


@settings(max_examples=120, **QUICK)
@given(data=st.data())
def test_any_rows_are_pairs_or_dropped_for_a_reason(tmp_path, data):
    right = [
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"input": {"messages": [{"role": "user", "content": "a"}], "tools": []}, "preferred_output":
            [{"role": "assistant", "content": "b"}], "non_preferred_output": [{"role": "assistant", "content": "c"}]},
        {"prompt": "a", "completions": ["b", "c"], "scores": [1, 2]},
        {"prompt": "a", "response_a": "b", "response_b": "c", "winner": "a", "annotator": "x", "margin": 2},
        {"conversations": [{"from": "human", "value": "a"}], "chosen": {"from": "gpt", "value": "b"},
         "rejected": {"from": "gpt", "value": "c"}},
    ]  # fmt: skip
    rows = data.draw(st.lists(st.sampled_from(right).flatmap(spoiled) | JSON | st.sampled_from(right), max_size=5))
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8", errors="surrogatepass")
    try:
        found = read_pairs(path)
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(found, PairFile)
        assert found.num_records == len(rows)
        assert all("\n" not in item.detail and len(item.detail) < 2000 for item in found.dropped)


# ------------------------------------------------------------------------------------------------------ chat templates

PIECES = st.sampled_from(
    ["{{ messages[0].content }}", "{% for m in messages %}", "{% endfor %}", "{{ m.role }}", "{{ m['content'] }}",
     "{% if", "add_generation_prompt %}", "{% endif %}", "{{ tools|tojson }}", "{% set x = ", "%}",
     "}}", "{{", "{#", "#}",
     "x",
     "{% macro f(a) %}", "{% endmacro %}", "{{ f(1) }}", "{{ loop.index }}", "{% break %}", "{{ 1 / 0 }}", "|upper",
     "\n", "{{ raise_exception('no') }}", "{{ messages|length * 'a' }}", "<|im_end|>", "{% generation %}",
     "{% endgeneration %}",
     "{{ strftime_now('%d') }}", "{{ ''.join(messages) }}", "{{ messages[99].content }}", "\ud800", "{{ eos_token }}",
     "{{ messages.__class__ }}", "{% include 'x' %}", "{{ namespace(a=1).a }}", "{{ range(3)|list }}", "{% raw %}"]
)  # fmt: skip


@settings(max_examples=200, **QUICK)
@given(st.lists(PIECES | st.text(max_size=6), max_size=8).map("".join))
def test_any_template_gives_tokens_or_a_render_error(tokenizer, template):
    own = copy.deepcopy(tokenizer)
    own.chat_template = template or " "
    pair = Pair((Message("user", "the cat"),), Message("assistant", "yes"), Message("assistant", "no"))
    try:
        assert isinstance(Renderer(own, [own.eos_token_id], DataConfig()).pair(pair), TokenizedPair)
    except RenderError as error:
        assert "\n" not in str(error)
        known = ("template", "seam", "tokenizer", "empty_completion", "identical_tokens", "too_long", "not_rendered")
        assert error.reason in known
