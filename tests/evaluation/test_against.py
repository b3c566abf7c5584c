"""When two runs were measured against one model: by the weights, else by where these come from, else not known."""

from __future__ import annotations

import itertools

import pytest

from tiebreak.evaluation.against import Against, same_reference
from tiebreak.verbs.compare import compare
from tiebreak.verbs.train import train
from tiny import run_of_cats


def _of(
    model="llama sha256:aa", base=None, weights="sha256:1", revision=None, named=None, bits=None, by=None, **settings
):
    told = {"model": model, "base_identity": base or model, "base_revision": revision, "reference_model": named}
    told |= {"reference_weights": weights, "quantization": bits}
    told |= {} if by is None else {"method": "lora", "dtype": "float32", "versions": {"transformers": "5"}} | by
    return Against.of(told, {"model.name": "m", "model.revision": revision} | settings)


def _named(identity, base=None, **more):
    return {"identity": identity, "base_identity": base or identity} | more


PLAIN = _of()
NF4 = {"kind": "nf4", "double": True, "library": "bitsandbytes 1"}
AGAINST_BASE = _of(
    "sft sha256:bb", "elsewhere sha256:aa", "sha256:4", named=_named("elsewhere sha256:aa"), **{"reference.model": "x"}
)
CASES = {
    "the same weights": (PLAIN, _of("hub/llama", weights="sha256:1"), True),
    "a frozen copy in another dtype": (PLAIN, _of("moved sha256:aa", weights="sha256:2"), True),
    "a hub id that is not told how it lay": (_of("hub/m"), _of("hub/m", weights="sha256:2"), None),
    "a hub id whose digests were taken alike": (_of("hub/m", by={}), _of("hub/m", weights="sha256:2", by={}), False),
    "a hub id in another dtype": (
        _of("hub/m", by={}), _of("hub/m", weights="sha256:2", by={"dtype": "bfloat16"}), None),
    "a hub id in another form": (
        _of("hub/m", by={}), _of("hub/m", weights="sha256:2", by={"method": "none"}), None),
    "a hub id read by another version": (
        _of("hub/m", by={}), _of("hub/m", weights="sha256:2", by={"versions": {"transformers": "6"}}), None),
    "an adapter on a hub id whose digests were taken alike": (
        _of("a sha256:bb", "hub/m", by={}), _of("a sha256:bb", "hub/m", "sha256:2", by={}), False),
    "a hub id with one digest": (_of("hub/m"), _of("hub/m", weights=None), None),
    "a hub id without digests": (_of("hub/m", weights=None, by={}), _of("hub/m", weights=None, by={}), None),
    "a commit without digests": (
        _of("hub/m", weights=None, revision="3f" * 20), _of("hub/m", weights=None, revision="3f" * 20), True),
    "a hub id at a tag": (_of("hub/m", revision="v1"), _of("hub/m", weights="sha256:2", revision="v1"), None),
    "a hub id at a commit": (
        _of("hub/m", revision="3f" * 20), _of("hub/m", weights="sha256:2", revision="3f" * 20), True),
    "an adapter on a hub id": (_of("a sha256:bb", "hub/m"), _of("a sha256:bb", "hub/m", "sha256:2"), None),
    "a hub id at another revision": (
        _of("hub/m", revision="v1"), _of("hub/m", weights="sha256:2", revision="v2"), False),
    "an adapter that hangs and one that is merged": (
        _of("sft sha256:bb", "l sha256:aa"), _of("sft sha256:bb", "m sha256:aa", "sha256:2"), True),
    "an adapter on its base": (PLAIN, _of("sft sha256:bb", "llama sha256:aa", "sha256:2"), False),
    "two adapters": (_of("a sha256:bb", "l sha256:aa"), _of("b sha256:cc", "l sha256:aa", "sha256:2"), False),
    "an adapter on two bases": (
        _of("a sha256:bb", "l sha256:aa"), _of("a sha256:bb", "l sha256:dd", "sha256:2"), False),
    "another base": (PLAIN, _of("other sha256:dd", weights="sha256:2"), False),
    "one that is named and is where another began": (PLAIN, AGAINST_BASE, True),
    "one that is named and another": (_of("sft sha256:bb", "l sha256:aa", "sha256:2"), AGAINST_BASE, False),
    "in four bits": (PLAIN, _of(weights="sha256:2", bits=NF4), False),
    "in four bits by another version": (
        _of(bits=NF4), _of(weights="sha256:2", bits=NF4 | {"library": "bitsandbytes 2"}), True),
    "a named one that is in four bits": (
        _of(bits=NF4), _of("p sha256:ee", weights="sha256:2", named=_named("l sha256:aa", quantization=NF4)), True),
    "a folder and a hub id": (PLAIN, _of("hub/llama", weights="sha256:2"), None),
    "a manifest without it": (PLAIN, Against.of({}, {}), None),
    "two manifests without it": (Against.of({}, {}), Against.of({}, {}), None),
    "a setting that the manifest is older than": (PLAIN, _of(weights=None, **{"reference.model": "x"}), None),
    "no digest, one source": (PLAIN, _of(weights=None), True),
}  # fmt: skip


@pytest.mark.parametrize(("one", "two", "same"), CASES.values(), ids=CASES)
def test_the_same_reference_is_told_from_another_and_from_one_that_is_not_known(one, two, same):
    assert same_reference(one, two) is same
    assert same_reference(two, one) is same


def test_two_manifests_that_are_alike_are_never_two_references_and_one_where_they_say_which():
    for (one, _, _), (two, _, _) in itertools.pairwise(CASES.values()):
        assert same_reference(one, one) is not False
        assert same_reference(one, one) or not one.weights
        assert same_reference(one, two) is same_reference(two, one)


def test_runs_of_an_adapter_in_half_precision_and_of_a_frozen_copy_are_against_one_model(tiny_model, tmp_path):
    runs = []
    for name, kind, dtype in (("a", "lora", "bfloat16"), ("b", "none", "float32")):
        folder = tmp_path / name
        folder.mkdir()
        runs.append(train(run_of_cats(tiny_model, folder, 12, kind, model__dtype=dtype)))
    one, two = (run.manifest["reference_weights"] for run in runs)
    assert one != two
    found = compare(*(run.path for run in runs)).as_dict()
    assert found["others"][0]["same_reference"] is True
    assert "reference" not in {one["key"] for one in found["differences"]}
