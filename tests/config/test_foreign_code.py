"""Of a Python file, the settings that its DPO trainer has: of no other call, and of no name that has several values."""

from __future__ import annotations

import pytest

from tiebreak.config.foreign.reading import read_foreign
from tiebreak.config.foreign.translation import translated
from tiebreak.errors import ConfigError

ELSEWHERE = "no part of what the DPO trainer is given"


def settings_of(path, *keys):
    found = translated(path, "trl")
    lines = {line.key: line.value for line in found.lines}
    return tuple(lines.get(key) for key in keys), found


@pytest.mark.parametrize("other", ["SFTConfig", "RewardConfig", "GenerationConfig", "TrainingArguments"])
def test_another_configuration_in_the_file_gives_no_settings(code, other):
    text = f"""first = {other}(output_dir="first", learning_rate=2e-5, max_length=99)
args = DPOConfig(output_dir="dpo", learning_rate=5e-7)
DPOTrainer(model="org/m", args=args)
"""
    taken, found = settings_of(code(text), "output.dir", "training.learning_rate", "data.max_length")
    assert taken == ("dpo", 5e-7, None)
    assert found.left_out == {f"{other}(…) in line 1": ELSEWHERE}


def test_the_adapter_of_another_trainer_is_not_this_one_s(code):
    text = """SFTTrainer(model="org/base", args=SFTConfig(), peft_config=LoraConfig(r=64))
DPOTrainer(model="org/m", args=DPOConfig(beta=0.2))
"""
    taken, found = settings_of(code(text), "adapter.kind", "adapter.rank", "loss.beta")
    assert taken == ("none", None, 0.2)
    assert found.left_out.keys() == {f"{name}(…) in line 1" for name in ("SFTTrainer", "SFTConfig", "LoraConfig")}


LOADED = """tok = AutoTokenizer.from_pretrained("org/base")
ref = AutoModelForCausalLM.from_pretrained("org/teacher", torch_dtype="float32")
model = AutoModelForCausalLM.from_pretrained("org/sft")
"""


@pytest.mark.parametrize(
    ("more", "trainer", "model", "reference"),
    [
        ("", "model=model, ref_model=ref", "org/sft", "org/teacher"),
        ("", "model, ref", "org/sft", "org/teacher"),
        ("", "model", "org/sft", None),
        ('model = PeftModel.from_pretrained(model, "org/adapter")', "model=model", "org/adapter", None),
        (
            'tuned = PeftModel.from_pretrained(model, model_id="a/b")',
            "model=tuned, ref_model=ref",
            "a/b",
            "org/teacher",
        ),
        ('ref = PeftModel.from_pretrained(ref, "org/old")', "model=model, ref_model=ref", "org/sft", "org/old"),
        ("model = get_peft_model(model, LoraConfig())\nmodel.train()", "model", "org/sft", None),
        ("def made():\n    return model", "model=made()", "org/sft", None),
    ],
)
def test_the_model_is_the_one_that_the_trainer_is_given(code, more, trainer, model, reference):
    text = f"{LOADED}{more}\nDPOTrainer({trainer}, args=DPOConfig(beta=0.2), processing_class=tok)\n"
    taken, _ = settings_of(code(text), "model.name", "reference.model", "model.dtype")
    assert taken == (model, reference, None)


@pytest.mark.parametrize(
    ("text", "key", "why"),
    [
        (LOADED + 'm = PeftModel.from_pretrained(model, "a").merge_and_unload()\nDPOTrainer(m, args=DPOConfig())',
         "peft_model_id", "model.name: an adapter is merged into it by the code"),
        ("t = SFTTrainer(model='org/base')\nDPOTrainer(model=t.model, args=DPOConfig())",
         "model", "model.name: made elsewhere, and not read"),
        ("DPOTrainer(model='m', args=DPOConfig(), peft_config=IA3Config())",
         "peft_config", "adapter.kind: made elsewhere, and not read"),
        ("DPOTrainer(model='m', ref_model=load(), args=DPOConfig())",
         "ref_model", "reference.model: its value is computed by the code"),
    ],
)  # fmt: skip
def test_what_the_trainer_is_given_and_no_call_names_is_told(code, text, key, why):
    _, found = settings_of(code(text))
    assert found.left_out[key] == why


def test_held_out_pairs_are_not_what_is_trained_on(code):
    text = """train = load_dataset("org/pairs", split="train_prefs")
held = load_dataset("org/pairs", split="test_prefs").select(range(9))
DPOTrainer("org/m", args=DPOConfig(), train_dataset=train.map(f), eval_dataset=held)
"""
    assert settings_of(code(text), "data.train", "data.heldout")[0] == (
        "hf:org/pairs@train_prefs", "hf:org/pairs@test_prefs")  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("DPOConfig(beta=0.1)\nDPOConfig(beta=0.5)", r"beta: 0\.1 in line 1, 0\.5 in line 2"),
        ("a = DPOConfig(beta=0.1)\nDPOTrainer('m', args=a, beta=0.3)", r"beta: 0\.1 in line 1, 0\.3 in line 2"),
        ("m = AutoModel.from_pretrained('a')\nm = AutoModel.from_pretrained('b')\nDPOTrainer(m, args=DPOConfig())",
         "model_name_or_path: a in line 1, b in line 2"),
        ("LoraConfig(r=4)\nLoraConfig(r=8)\nDPOConfig()", "r: 4 in line 1, 8 in line 2"),
    ],
)  # fmt: skip
def test_two_values_for_one_setting_are_refused_in_one_line(code, text, told):
    with pytest.raises(ConfigError, match=rf"train.py: {told}; which one is meant cannot be told"):
        read_foreign(code(text))


@pytest.mark.parametrize(
    "before_and_after",
    [
        ("x = 0.5", "x = 0.3"),
        ("x = 0.5\nfor x in (0.1, 0.2):\n    pass", ""),
        ("x = 0.5\nx *= 2", ""),
        ("x = 0.5\ndef f(x):\n    pass", ""),
        ("x = 0.5\ndef f():\n    global x\n    x = 1", ""),
        ("x = 0.5\nfrom a import x", ""),
        ("x, y = 0.5, 1\nx += y", ""),
        ("with a() as x:\n    pass", ""),
    ],
)
def test_a_name_with_several_values_stands_for_none(code, before_and_after):
    before, after = before_and_after
    taken, found = settings_of(code(f"{before}\nDPOTrainer('m', args=DPOConfig(beta=x))\n{after}\n"), "loss.beta")
    assert found.left_out == {"beta": "loss.beta: its value is computed by the code"}
    assert taken == (None,)


@pytest.mark.parametrize(
    "bound", ["x = 0.5", "x: float = 0.5", "y = 0.5\nx = y", "x, y = 0.5, 1", "if big:\n    x = 0.5"]
)
def test_a_name_with_one_value_stands_for_it(code, bound):
    assert settings_of(code(f"{bound}\nDPOTrainer('m', args=DPOConfig(beta=x))\n"), "loss.beta")[0] == (0.5,)


@pytest.mark.parametrize(
    ("bound", "call"),
    [
        ("c = {'beta': 0.5}", "DPOConfig(**c)"),
        ("c = dict(beta=0.5)", "DPOConfig(**c)"),
        ("c = {'beta': 0.1}\nd = {**c, 'beta': 0.5}", "DPOConfig(**d)"),
        ("", "DPOConfig(**{'beta': 0.5})"),
    ],
)
def test_settings_in_a_literal_dict_are_settings(code, bound, call):
    taken, found = settings_of(code(f"{bound}\nDPOTrainer('m', args={call})\n"), "loss.beta")
    assert (taken, found.left_out) == ((0.5,), {})


@pytest.mark.parametrize(
    "bound",
    ["c = load()", "c = {'beta': 0.5}\nc['beta'] = 1", "c = {}\nc.update(beta=1)", "c = {k: 1 for k in keys}",
     "c = {'beta': 1}\nif x:\n    c = {}"],
)  # fmt: skip
def test_what_a_dict_of_the_code_may_hold_is_told_beside_each_default(code, bound):
    taken, found = settings_of(code(f"{bound}\nDPOTrainer('m', args=DPOConfig(**c))\n"), "loss.beta")
    assert (taken, found.left_out) == ((None,), {"**c": "settings by **c are not read"})
    assert "  learning_rate: 1.0e-06  # not seen there (**c may hold it): its default\n" in found.text


def test_a_configuration_from_elsewhere_is_told_beside_each_default(code):
    _, found = settings_of(code("DPOTrainer(model='m', args=parsed(), peft_config=LoraConfig(r=4))\n"))
    assert found.left_out == {"args": "made elsewhere, and not read"}
    assert "# not seen there (args may hold it): its default\n" in found.text


@pytest.mark.parametrize(
    "change",
    ["args.beta = 0.5", "setattr(args, 'beta', 0.5)", "args = replace(args, beta=0.5)", "if x:\n\n  args.beta += 1"],
)
def test_what_is_set_after_the_call_is_told(code, change):
    text = f"args = DPOConfig(beta=0.1, output_dir='o')\n{change}\nDPOTrainer('m', args=args)\n"
    taken, found = settings_of(code(text), "loss.beta", "output.dir")
    assert taken == (None, "o")
    assert found.left_out == {"beta": f"loss.beta: set in line {2 + change.count(chr(10))}, after its call"}


def test_what_the_trainer_is_given_as_one_dict_is_followed(code):
    text = """sft = SFTConfig(beta=1)
args = DPOConfig(beta=0.2)
more = dict(args=args, model="org/m")
DPOTrainer(**more)
"""
    assert settings_of(code(text), "loss.beta", "model.name")[0] == (0.2, "org/m")


def test_what_is_loaded_after_training_is_not_what_is_trained(code):
    text = """model = AutoModelForCausalLM.from_pretrained("org/m")
trainer = DPOTrainer(model, args=DPOConfig(beta=0.2))
model = AutoPeftModelForCausalLM.from_pretrained("out")
"""
    taken, found = settings_of(code(text), "model.name")
    assert taken == ("org/m",)
    assert found.left_out == {"AutoPeftModelForCausalLM.from_pretrained(…) in line 3": ELSEWHERE}
    inside = "".join(f"  {line}\n" for line in text.splitlines())
    assert settings_of(code(f"def main():\n{inside}"), "model.name")[0] == ("org/m",)
    with pytest.raises(ConfigError, match="model_name_or_path: org/m in line 2, out in line 4"):
        read_foreign(code(f"for seed in seeds:\n{inside}"))


ROWS = 'd = load_dataset("org/pairs")\n'


@pytest.mark.parametrize(
    ("steps", "given", "train", "heldout", "told"),
    [
        ("", 'train_dataset=d["train"].shuffle(seed=1)', "hf:org/pairs", None, []),
        ("", 'train_dataset=d["validation"], eval_dataset=d["test"]',
         "hf:org/pairs@validation", "hf:org/pairs@test", []),
        ("d = d.filter(good)", 'train_dataset=d["train"]', "hf:org/pairs", None, ["filter(…) in line 2"]),
        ("d = d['train'].train_test_split(0.1)", "train_dataset=d['train'], eval_dataset=d['test']",
         "hf:org/pairs", None, ["train_test_split(…) in line 2"]),
        ("def made():\n    return d['train'].select(range(9))", "train_dataset=made()", "hf:org/pairs", None,
         ["select(…) in line 3"]),
        ("", "train_dataset=d['train'].rename_column('better', 'chosen').map(f)", "hf:org/pairs", None,
         ["map(…) in line 2"]),
        ("d = d.rename_columns({'good': 'better', 'id': 'idx'})", "train_dataset=d['train']", "hf:org/pairs", None,
         ["rename_columns(…) in line 2"]),
    ],
)  # fmt: skip
def test_what_the_code_makes_of_the_rows_is_taken_or_told(code, steps, given, train, heldout, told):
    text = f"{ROWS}{steps}{chr(10) if steps else ''}DPOTrainer('org/m', args=DPOConfig(), {given})\n"
    taken, found = settings_of(code(text), "data.train", "data.heldout")
    assert taken == (train, heldout)
    assert sorted(found.left_out) == told


RENAMED = {
    "rename_column('question', 'prompt')": ("question", "chosen", "rejected"),
    "rename_columns({'better': 'chosen', 'worse': 'rejected'}).rename_column('q', new_column_name='prompt')": (
        "q", "better", "worse"
    ),
    "rename_column('a', 'b').rename_column('b', 'prompt')": ("a", "chosen", "rejected"),
    "rename_columns(column_mapping={'good': 'chosen'}).shuffle(seed=1)": ("prompt", "good", "rejected"),
    "rename_column('prompt', 'old').rename_column('full', 'prompt')": ("full", "chosen", "rejected"),
    "rename_column('prompt', 'old').rename_column('good', 'chosen')": None,
    "rename_column(name, 'prompt')": None,
}  # fmt: skip


@pytest.mark.parametrize(("steps", "columns"), RENAMED.items(), ids=RENAMED)
def test_columns_that_the_code_renames_for_its_trainer_are_mapped(code, steps, columns):
    text = f"{ROWS}DPOTrainer('org/m', args=DPOConfig(), train_dataset=d['train'].{steps})\n"
    (taken,), found = settings_of(code(text), "data.columns")
    assert taken == (columns and dict(zip(("prompt", "chosen", "rejected"), columns, strict=True)))
    assert any(key.startswith("rename_column") for key in found.left_out) == (columns is None)


@pytest.mark.parametrize(
    ("imported", "called", "is_told"),
    [
        ("from utils import prepare", "prepare(args)", True),
        ("from .utils import made as prepare", "args = prepare(args, 1)", True),
        ("from utils import prepare", "prepare(1)", False),
        ("from dataclasses import asdict as prepare", "prepare(args)", False),
    ],
)
def test_a_function_of_another_file_that_may_change_the_settings_is_named(code, imported, called, is_told):
    text = f"{imported}\nargs = DPOConfig(beta=0.2)\n{called}\nDPOTrainer('org/m', args=args)\n"
    _, found = settings_of(code(text))
    assert ("prepare(…) in line 3" in found.left_out) == is_told


@pytest.mark.parametrize(
    "renamed", ["rename_columns({'chosen': 'rejected', 'rejected': 'chosen'})", "rename_column('rejected', 'chosen')"]
)
def test_columns_that_trade_places_are_refused(code, renamed):
    text = f"{ROWS}DPOTrainer('org/m', args=DPOConfig(), train_dataset=d['train'].{renamed})\n"
    with pytest.raises(ConfigError, match=r"line 2 gives the column '(chosen|rejected)' another name"):
        settings_of(code(text))


@pytest.mark.parametrize(
    "text",
    [
        "class T:\n  def run(self):\n    self.args = DPOConfig(beta=0.1)\n    self.args.beta = 0.5\n"
        "    DPOTrainer('m', args=self.args)",
        "a = DPOConfig(beta=0.1)\nb = a\nb.beta = 0.5\nDPOTrainer('m', args=b)",
        "a = DPOConfig(beta=0.1)\ndef tune(it):\n  it.beta = 0.5\ntune(a)\nDPOTrainer('m', args=a)",
        "t = DPOTrainer('m', args=DPOConfig(beta=0.1))\nt.args.beta = 0.5",
        "t = DPOTrainer('m', args=DPOConfig(beta=0.1))\nt.beta = 0.5",
        "t = DPOTrainer('m', args=DPOConfig(beta=0.1))\nsetattr(t.args, 'beta', 0.5)",
        "a = DPOConfig(beta=0.1)\nvars(a)['beta'] = 0.5\nDPOTrainer('m', args=a)",
    ],
)
def test_a_setting_is_not_its_first_value_whatever_it_is_set_through(code, text):
    taken, found = settings_of(code(text), "loss.beta")
    assert taken == (None,)
    assert "set in line" in found.left_out["beta"]


def test_what_is_set_on_another_configuration_is_not_this_one_s(code):
    text = "s = SFTConfig()\ns.beta = 3\ntok = AutoTokenizer.from_pretrained('t')\ntok.model_max_length = 9\n"
    taken, found = settings_of(code(f"{text}DPOTrainer('m', args=DPOConfig(beta=0.1))"), "loss.beta")
    assert taken == (0.1,)
    assert "model_max_length" not in found.left_out
