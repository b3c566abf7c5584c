"""What training does about the doctor's findings: errors stop it, by name, unless they are allowed."""

from __future__ import annotations

import json

import pytest

from tiebreak.config import DataConfig, build_config
from tiebreak.doctor.examination import audit
from tiebreak.doctor.triage import heed, heed_loss
from tiebreak.errors import ConfigError, DataError
from tiebreak.verbs.check import check


def row(number: int, **changes) -> dict:
    return {"prompt": f"Why {number}?", "chosen": f"Yea {number}.", "rejected": f"Nay {number}."} | changes


class Heard:
    def __init__(self):
        self.warnings = []

    def warn(self, text):
        self.warnings.append(text)


def heard(tmp_path, rows, **settings):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    data, progress = DataConfig(train=str(path), **settings), Heard()
    heed(check(data), data, progress)
    return progress.warnings


GOOD = [row(number) for number in range(120)]
CONTRADICTED = [*GOOD, row(3, chosen="Nay 3.", rejected="Yea 3.")]


def test_an_error_stops_training_in_one_line_with_code_place_and_remedies(tmp_path):
    with pytest.raises(DataError) as refusal:
        heard(tmp_path, CONTRADICTED)
    line = str(refusal.value)
    assert "\n" not in line
    for words in ("contradiction: 2 pairs", "pairs.jsonl:4: ", "tiebreak clean", "data.allow: [contradiction]"):
        assert words in line


def test_an_error_that_is_allowed_by_its_code_is_told_as_a_warning(tmp_path):
    (warning,) = heard(tmp_path, CONTRADICTED, allow=("contradiction",))
    assert warning.startswith("contradiction: 2 pairs")


def test_allowing_one_error_does_not_allow_another(tmp_path):
    with pytest.raises(DataError, match="contradiction"):
        heard(tmp_path, CONTRADICTED, allow=("cycle",))


def test_several_errors_are_all_named(tmp_path):
    with pytest.raises(DataError, match=r"\(and inverted_score\).*data\.allow: \[contradiction, inverted_score\]"):
        heard(tmp_path, [*CONTRADICTED, row(200, score_chosen=1, score_rejected=2)])


def test_a_code_that_is_no_rule_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'contradiction'"):
        heard(tmp_path, GOOD, allow=("contradictions",))


def test_warnings_are_told_and_sound_data_says_nothing(tmp_path):
    assert heard(tmp_path, GOOD) == []
    (warning,) = heard(tmp_path, [*GOOD, row(5)])
    assert warning == "duplicate: 1 pairs: exactly the same as another"


def test_prompts_of_a_held_out_file_do_not_stop_training_which_leaves_them_out(tmp_path):
    heldout = tmp_path / "heldout.jsonl"
    heldout.write_text(json.dumps(row(5, chosen="So.")) + "\n")
    (warning,) = heard(tmp_path, GOOD, heldout=str(heldout))
    assert warning.startswith("leak: 1 pairs")


def test_a_refusal_names_every_source(tmp_path):
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for file, rows in zip(files, (GOOD, CONTRADICTED[-1:]), strict=True):
        file.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    data = DataConfig(train=tuple(map(str, files)))
    with pytest.raises(DataError) as refusal:
        heed(check(data), data, Heard())
    line = str(refusal.value)
    assert line.startswith(f"{files[0]}, {files[1]}: contradiction: ")
    assert f"'tiebreak check {files[0]} {files[1]}'" in line
    assert f"'tiebreak clean {files[0]} {files[1]} OUT'" in line


# ----------------------------------------------------------------------------------------------------------- objectives


FACTS = {"margin": 1.0, "soft_label": 0.9, "chosen_win_rate": 0.8, "rejected_win_rate": 0.3}
LACKING = {
    "no margin": ("odpo", {"margin": None}, "states no margin, which odpo reads; 2 of 12 pairs are so"),
    "no margin for a soft label of it": (
        "rpo_backward",
        {"margin": None},
        "states no margin, which rpo_backward reads",
    ),
    "no scores ahead": ("odpo", {"margin": 0.0}, "a margin that is not above zero, of which odpo takes the log"),
    "no soft label": (
        {"name": "dpo", "soft_labels": True},
        {"soft_label": None},
        "states no soft label, which dpo reads; 2 of 12",
    ),
    "no win rate": ("sppo_soft", {"chosen_win_rate": None}, "states no chosen win rate, which sppo_soft reads"),
    "a weight": ("dr_dpo", {"weight": 2.0}, "has a weight of its own, and dr_dpo mixes the pairs of a step"),
}


@pytest.mark.parametrize(("loss", "changed", "told"), LACKING.values(), ids=LACKING)
def test_a_loss_says_how_many_pairs_lack_what_it_reads_and_the_first(loss, changed, told, tmp_path):
    rows = [{"prompt": f"p{n}", "chosen": "yes", "rejected": "no"} | FACTS for n in range(12)]
    for place in (4, 7):
        rows[place] |= changed
    rows = [{key: value for key, value in row.items() if value is not None} for row in rows]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = build_config({"data": {"train": str(tmp_path / "pairs.jsonl")}, "loss": loss})
    examined = audit(config.data).report
    with pytest.raises(DataError, match=told) as refusal:
        heed_loss(examined, config.loss)
    assert "pairs.jsonl:5: " in str(refusal.value)
    heed_loss(examined, build_config({"loss": "dpo"}).loss)


# --------------------------------------------------------------------------------------------- completions on their own


def thumb(number: int, **changes) -> dict:
    return {"prompt": f"Why {number}?", "completion": f"Because {number}.", "label": number % 2 == 0} | changes


THUMBS = [thumb(number) for number in range(200)]


def test_sound_thumbs_are_trained_on_and_contradictions_stop_that(tmp_path):
    assert heard(tmp_path, THUMBS, pairing="none") == []
    against = [*THUMBS, thumb(3, label=True)]
    with pytest.raises(DataError, match=r"contradiction: 2 completions: .* \(1 text, both liked and disliked\)"):
        heard(tmp_path, against, pairing="none")
    assert len(heard(tmp_path, against, pairing="none", allow=("contradiction",))) == 1


@pytest.mark.parametrize("allow", [(), ("one_label",)])
def test_one_label_alone_stops_training_whatever_is_allowed(tmp_path, allow):
    with pytest.raises(DataError) as refusal:
        heard(tmp_path, [thumb(n, label=True) for n in range(200)], pairing="none", allow=allow)
    line = str(refusal.value)
    assert "one_label: 200 completions: every completion has the same label (all are liked)" in line
    assert "bring completions of the other label" in line
    assert "data.allow" not in line


def test_thumbs_without_a_partner_stop_training_on_pairs_with_the_way_out(tmp_path):
    with pytest.raises(DataError) as refusal:
        heard(tmp_path, THUMBS)
    line = str(refusal.value)
    assert "unusable: 200 records" in line
    assert line.endswith("look at each on its own with --pairing none, and learn from it so with loss: {name: kto}")


def test_a_loss_of_thumbs_takes_what_was_examined_for_it_and_one_of_pairs_does_not(tmp_path):
    path = tmp_path / "thumbs.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in [*THUMBS, thumb(900, weight=2.0)]), encoding="utf-8")
    examined = audit(DataConfig(train=str(path), pairing="none")).report
    assert examined.measurements["stated"]["liked"] == {"num_lacking": 0, "first": None}
    for name in ("kto", "bco_unpaired", "apo_zero_unpaired", "dpo"):
        heed_loss(examined, build_config({"loss": name}).loss)
    with pytest.raises(DataError, match="states no margin, which odpo reads; 201 of 201 completions are so"):
        heed_loss(examined, build_config({"loss": "odpo"}).loss)
    with pytest.raises(DataError, match=r"thumbs.jsonl:201: has a weight of its own, and dr_dpo mixes the completions"):
        heed_loss(examined, build_config({"loss": "dr_dpo"}).loss)
