from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tiebreak.engine.reference.shard import Shard
from tiebreak.engine.reference.store import completion_key
from tiebreak.progress import Silent
from tiny import disturb, load, said, settings, token_pairs

PAIRS = token_pairs(6, num_prompts=4)


class Heard(Silent):
    """Remembers what it is told."""

    def __init__(self):
        self.sentences = []
        self.warnings = []

    def say(self, text):
        self.sentences.append(text)

    def warn(self, text):
        self.warnings.append(text)


def _load(model: Path, folder: Path, adapter: str = "lora", **changes):
    return load(settings(model, adapter, reference__store=str(folder), **changes))


@pytest.fixture
def filled(tiny_model, tmp_path):
    """A folder that already holds the values of the tiny model for all pairs."""
    reference = _load(tiny_model, tmp_path).reference
    reference.logps(PAIRS)
    reference.flush()
    assert reference.num_asked == len(PAIRS)
    return tmp_path


def _num_asked(loaded, pairs=PAIRS) -> int:
    loaded.reference.logps(pairs)
    return loaded.reference.num_asked


def _begin(loaded, pairs=PAIRS) -> Heard:
    heard = Heard()
    loaded.reference.begin(pairs, loaded.budget.cut, heard)
    return heard


def _asked_afresh(reference, pairs):
    with reference.model() as model, torch.no_grad():
        return model.score(pairs)


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("**/*.safetensors"))


def _tamper(folder: Path) -> None:
    """Put other values into a store, in shards that are whole and rightly named."""
    for path in _shards(folder):
        rows = Shard.read(path.read_bytes(), path.stem).rows()
        path.unlink()
        Shard.of({key: 1.01 * row for key, row in rows.items()}).write(path.parent)


def test_a_hit_equals_a_live_pass_bit_for_bit(tiny_model, filled):
    reference = _load(tiny_model, filled).reference
    live, stored = _asked_afresh(reference, PAIRS), reference.logps(PAIRS)
    assert reference.num_asked == 0
    assert live.num_tokens == stored.num_tokens
    assert torch.equal(live.values, stored.values)
    assert torch.equal(live.summed().paired().gap, said(reference, PAIRS).gap)


def test_a_hit_equals_a_live_pass_in_any_order_and_subset(tiny_model, filled):
    reference = _load(tiny_model, filled).reference
    some = [PAIRS[4], PAIRS[0], PAIRS[0], PAIRS[3]]
    stored, live = said(reference, some), _asked_afresh(reference, some).summed().paired()
    assert stored.gap.tolist() == pytest.approx(live.gap.tolist(), rel=1e-5)
    assert reference.num_asked == 0


@pytest.mark.parametrize("change", [{"loss__beta": 0.01}, {"training__epochs": 3}, {"adapter__rank": 2}])
def test_beta_epochs_and_adapter_cost_no_recomputation(tiny_model, filled, change):
    assert _num_asked(_load(tiny_model, filled, **change)) == 0


def test_full_fine_tuning_uses_what_an_adapter_s_run_computed(tiny_model, filled):
    assert _num_asked(_load(tiny_model, filled, "none")) == 0


def test_a_policy_that_has_moved_still_finds_the_values_of_its_start(tiny_model, filled):
    assert _num_asked(disturb(_load(tiny_model, filled))) == 0


def test_other_ids_are_computed_again(tiny_model, filled):
    longer = [type(p)(p.example_id, p.prompt_id, (7, *p.prompt_ids), p.chosen_ids, p.rejected_ids) for p in PAIRS]
    assert _num_asked(_load(tiny_model, filled), longer) == len(PAIRS)


def test_other_weights_never_find_them(tiny_model, filled, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    policy = load(settings(tiny_model, "none")).policy
    with torch.no_grad():
        next(iter(policy.network.parameters()))[0, 0] += 1e-3
    policy.save(other)
    assert _num_asked(_load(other, filled)) == len(PAIRS)


def test_another_rotation_of_the_same_weights_never_finds_them(tiny_model, filled, tmp_path_factory):
    other = tmp_path_factory.mktemp("rope")
    load(settings(tiny_model, "none")).policy.save(other)
    config = json.loads((other / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": 777.0}
    (other / "config.json").write_text(json.dumps(config))
    assert _num_asked(_load(other, filled)) == len(PAIRS)


def test_another_precision_never_finds_them(tiny_model, filled):
    assert _num_asked(_load(tiny_model, filled, model__dtype="bfloat16")) == len(PAIRS)


def test_a_starting_adapter_is_another_reference_than_its_base(tiny_adapter, filled):
    assert _num_asked(_load(tiny_adapter, filled)) == len(PAIRS)


def test_a_store_that_was_tampered_with_is_found_by_the_spot_check_and_set_aside(tiny_model, filled):
    assert _begin(_load(tiny_model, filled)).warnings == []
    _tamper(filled)
    loaded = _load(tiny_model, filled)
    (warning,) = _begin(loaded).warnings
    assert "set aside" in warning
    assert list(filled.glob("*.stale-1"))
    assert loaded.reference.num_asked == 0
    assert _num_asked(loaded) == len(PAIRS)


def test_no_spot_check_is_made_where_none_is_wanted(tiny_model, filled):
    _tamper(filled)
    loaded = _load(tiny_model, filled, reference__spot_checks=0)
    assert _begin(loaded).warnings == []
    assert _num_asked(loaded) == 0


def test_what_is_dear_to_ask_is_asked_when_a_run_begins_and_kept_for_the_next(tiny_model, tmp_path):
    loaded = _load(tiny_model, tmp_path, "none")
    assert _begin(loaded).sentences == []
    assert loaded.reference.num_asked == len(PAIRS)
    assert _shards(tmp_path)
    assert _num_asked(loaded) == len(PAIRS)
    again = _load(tiny_model, tmp_path, "none")
    assert _begin(again).sentences == ["reference: 6 of 6 pairs are stored from earlier runs"]
    assert again.reference.num_asked == 0


def test_what_is_cheap_to_ask_is_asked_as_training_goes(tiny_model, tmp_path):
    loaded = _load(tiny_model, tmp_path)
    _begin(loaded)
    assert loaded.reference.num_asked == 0
    assert _num_asked(loaded) == len(PAIRS)


def test_half_a_pass_is_kept(tiny_model, tmp_path):
    first = _load(tiny_model, tmp_path)
    first.reference.logps(PAIRS[:3])
    first.reference.flush()
    second = _load(tiny_model, tmp_path)
    missing = second.reference.missing(PAIRS)
    assert missing == PAIRS[3:]
    assert _num_asked(second) == len(missing)


def test_values_that_are_not_finite_are_not_kept(tiny_model, tmp_path):
    loaded = _load(tiny_model, tmp_path)
    with torch.no_grad():
        loaded.policy.network.get_base_model().lm_head.weight.fill_(torch.nan)
    assert said(loaded.reference, PAIRS).gap.isnan().all()
    loaded.reference.flush()
    assert not list(tmp_path.glob("*/*.safetensors"))
    assert not loaded.reference.own_rows


def test_without_a_store_every_value_is_still_asked_for_once(tiny_model):
    loaded = load(settings(tiny_model))
    loaded.reference.logps(PAIRS)
    assert _num_asked(loaded) == len(PAIRS)


# ------------------------------------------------------------------------------------------------ values of a run's own


def _names(tensors):
    """The shards that a checkpoint names."""
    return [bytes(row.tolist()).hex() for row in tensors.get("shards", ())]


def _rows(paths):
    return [Shard.read(path.read_bytes(), path.stem).rows() for path in paths]


def _same_rows(one, two):
    return list(one) == list(two) and all(torch.equal(one[key], two[key]) for key in one)


def test_before_the_first_value_a_checkpoint_names_no_shard_and_makes_no_folder(tiny_model, tmp_path):
    own = load(settings(tiny_model)).reference.own(tmp_path / "values")
    assert own.name == "reference"
    assert own.tensors() == {}
    assert own.beside() == ()
    assert not list(tmp_path.iterdir())


def test_checkpoints_write_each_value_once_and_name_all_shards(tiny_model, tmp_path):
    reference, folder = load(settings(tiny_model)).reference, tmp_path / "values"
    own = reference.own(folder)
    reference.logps(PAIRS[:3])
    first = own.tensors()
    (before,) = own.beside()
    written = before.stat().st_mtime_ns
    reference.logps(PAIRS)
    second = own.tensors()
    assert own.beside()[0] == before
    assert before.stat().st_mtime_ns == written
    assert _names(first) == _names(second)[:1]
    assert _names(second) == [path.stem for path in own.beside()]
    assert _shards(folder) == sorted(own.beside())
    one, two = _rows(own.beside())
    assert not one.keys() & two.keys()
    assert _same_rows(one | two, reference.own_rows)
    assert torch.equal(own.tensors()["shards"], second["shards"])
    assert len(_shards(folder)) == 2


def test_a_restored_run_has_its_rows_bit_for_bit_without_the_shared_store(tiny_model, tmp_path):
    shared, folder = tmp_path / "shared", tmp_path / "values"
    reference = _load(tiny_model, shared).reference
    own = reference.own(folder)
    reference.logps(PAIRS[:3])
    own.tensors()
    reference.logps(PAIRS)
    checkpoint = own.tensors()
    shutil.rmtree(shared)
    again = _load(tiny_model, shared)
    part = again.reference.own(folder)
    part.restore(checkpoint)
    assert _same_rows(again.reference.own_rows, reference.own_rows)
    assert torch.equal(again.reference.logps(PAIRS).values, reference.logps(PAIRS).values)
    assert again.reference.num_asked == 0
    assert not shared.exists()
    assert _names(part.tensors()) == _names(checkpoint)
    assert list(part.beside()) == list(own.beside())
    more = token_pairs(2, seed=9)
    again.reference.logps(more)
    assert _names(part.tensors())[:-1] == _names(checkpoint)
    assert len(_rows(part.beside())[-1]) == 4


def test_a_restored_run_takes_no_value_that_others_have_stored_since(tiny_model, filled, tmp_path):
    first = load(settings(tiny_model)).reference
    first.logps(PAIRS[:3])
    checkpoint = first.own(tmp_path / "values").tensors()
    loaded = _load(tiny_model, filled)
    loaded.reference.own(tmp_path / "values").restore(checkpoint)
    _begin(loaded)
    assert loaded.reference.missing(PAIRS) == PAIRS[3:]
    assert _num_asked(loaded) == 3


def test_a_run_that_is_restored_to_its_first_step_forgets_what_it_had(tiny_model, tmp_path):
    reference = load(settings(tiny_model)).reference
    own = reference.own(tmp_path / "values")
    nothing = own.tensors()
    reference.logps(PAIRS)
    own.tensors()
    own.restore(nothing)
    assert not reference.own_rows
    assert own.tensors() == {}


def test_a_spot_check_that_sets_values_aside_starts_the_shards_anew(tiny_model, filled, tmp_path):
    _tamper(filled)
    loaded, folder = _load(tiny_model, filled), tmp_path / "values"
    reference = loaded.reference
    own = reference.own(folder)
    reference.logps(PAIRS)
    (wrong,) = _names(own.tensors())
    assert len(_begin(loaded).warnings) == 1
    assert own.tensors() == {}
    reference.logps(PAIRS)
    (right,) = _names(own.tensors())
    assert right != wrong
    assert [path.stem for path in own.beside()] == [right]
    live = _asked_afresh(reference, PAIRS).rows()
    keys = [completion_key(pair.prompt_ids, completion) for pair in PAIRS for completion in pair.completions]
    (rows,) = _rows(own.beside())
    assert _same_rows(rows, dict(zip(keys, live, strict=True)))


def test_the_same_example_twice_is_not_taken_for_one_that_is_stored(tiny_model, tmp_path):
    loaded, heard = _load(tiny_model, tmp_path), Heard()
    loaded.reference.begin([PAIRS[0]] * 3, loaded.budget.cut, heard)
    assert heard.sentences == []
    assert len(loaded.reference.missing([PAIRS[0]] * 3)) == 3
    loaded.reference.logps([PAIRS[0]] * 3)
    assert loaded.reference.num_asked == 1


def test_a_stored_row_of_another_length_is_not_believed(tiny_model, filled):
    right = _load(tiny_model, filled).reference.logps(PAIRS).num_tokens
    for path in list(filled.glob("*/*.safetensors")):
        rows = Shard.read(path.read_bytes(), path.stem).rows()
        Shard.of({key: torch.cat([row, row[-1:]]) for key, row in rows.items()}).write(path.parent)
        path.unlink()
    loaded = _load(tiny_model, filled)
    assert len(loaded.reference.missing(PAIRS)) == len(PAIRS)
    assert loaded.reference.logps(PAIRS).num_tokens == right
    assert loaded.reference.num_asked == len(PAIRS)
