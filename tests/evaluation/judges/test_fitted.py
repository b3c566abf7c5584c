"""The data's own judge in its file: found again for the same weights and pairs, and for no others."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest

from tiebreak.config import DataConfig, DataJudge
from tiebreak.errors import DataError
from tiebreak.evaluation.judges import fitted
from tiebreak.evaluation.judges.given import Fitting, Given
from tiebreak.evaluation.judges.own import identity_of
from tiebreak.training.trained import load
from tiny import settings, token_pairs


@pytest.fixture(scope="module")
def first(tiny_model, tmp_path_factory):
    loaded = load(settings(tiny_model))
    pairs = token_pairs(60)
    file = tmp_path_factory.mktemp("fitted") / "judge.safetensors"
    return Fitting(loaded.reference, pairs[:30], pairs[30:], DataConfig(), loaded.budget.cut, 0, file)


def _made(fitting: Fitting) -> int:
    """The time of its file once the judge was asked for; one of such pairs may refuse itself."""
    with suppress(DataError), fitted.make(DataJudge(), Given(fitting=fitting)):
        pass
    return fitting.file.stat().st_mtime_ns


def _identity(fitting: Fitting) -> str:
    return identity_of(fitting.reference, fitting.train, fitting.heldout, fitting.seed, fitting.data)


def test_other_pairs_tokens_settings_or_seed_are_another_judge(first):
    others = token_pairs(60, seed=1)
    changed = (
        {"train": others[:30]},
        {"heldout": others[30:]},
        {"seed": 1},
        {"data": DataConfig(max_length=99)},
        {"train": [replace(pair, prompt_ids=(*pair.prompt_ids, 7)) for pair in first.train]},  # the same text
    )
    assert len({_identity(first), *(_identity(replace(first, **how)) for how in changed)}) == 1 + len(changed)


def test_it_is_fitted_once_and_anew_where_the_pairs_at_hand_are_others(first):
    known = _made(first)
    assert _made(first) == known
    assert _made(replace(first, train=(), seed=1)) == known  # there are none to compare with
    assert _made(replace(first, seed=1)) != known


def test_one_by_another_schema_is_none(first, monkeypatch):
    known = _made(first)
    monkeypatch.setattr(fitted, "SCHEMA", 999)
    given = Given(fitting=replace(first, train=()))
    with pytest.raises(DataError, match="or by another version"), fitted.make(DataJudge(), given):
        pass
    assert _made(first) != known


def test_a_flipped_bit_anywhere_in_its_file_is_never_a_judge_that_says_otherwise(first):
    """An attempt that was cut off has not sealed it yet."""
    fitting = replace(first, file=first.file.with_name("flipped.safetensors"))
    _made(fitting)
    kept = fitting.file.read_bytes()
    asked = Given(fitting=replace(fitting, train=()))

    def identity() -> str | None:
        try:
            with fitted.make(DataJudge(), asked) as judge:
                return judge.identity
        except DataError as error:
            found = "it is damaged" in str(error) or "another version" in str(error)
            return None if found else f"refused: {error}"

    whole = identity()
    assert whole is not None
    for at in range(0, len(kept), 7):
        fitting.file.write_bytes(kept[:at] + bytes([kept[at] ^ 4]) + kept[at + 1 :])
        said = identity()
        assert said in (None, whole) or "is not a judge as a run keeps one" in said, at
        if said == whole:
            assert b"digest" not in fitting.file.read_bytes(), at  # its own name was hit, and nothing else
