"""Who is who in a loop: what its rounds start from and are compared with, who answers, and how long they are held."""

from __future__ import annotations

import gc
import weakref

import pytest

from policy_servers import running
from tiebreak.campaigns import lineup as lineups
from tiebreak.campaigns.lineup import Lineup
from tiebreak.config.rounds import Rounds, RoundsConfig
from tiebreak.data.preparation import prepare
from tiebreak.engine.answers.answerer import Chat, Sampling
from tiebreak.engine.models import load_frozen, load_renderer
from tiebreak.files import write_jsonl
from tiebreak.progress import Silent
from tiebreak.records import Message
from tiebreak.stations.walk import open_walk

CHATS = [Chat((Message("user", text),)) for text in ("the cat", "yes")]


def _asked(folder, model, **settings):
    told = RoundsConfig.model_validate({"judge": "rule:repetition"} | settings)
    return Rounds("loop.yaml", folder, told, {"model": {"device": "cpu"} | model, "output": {"dir": str(folder)}})


@pytest.fixture
def weights(monkeypatch):
    """Weights of every model that a loop has loaded, as long as somebody holds them."""
    made = []

    def noted(*told):
        model = load_frozen(*told)
        made.append([weakref.ref(one) for one in model.network.parameters()])
        return model

    monkeypatch.setattr(lineups, "load_frozen", noted)

    def held():
        gc.collect()
        return [any(one() is not None for one in some) for some in made]

    return held


def test_weights_leave_the_memory_when_they_were_asked_whoever_still_has_the_model(tiny_model, tmp_path, weights):
    lineup = Lineup(_asked(tmp_path, {"name": str(tiny_model)}), Silent())
    with lineup.frozen(0) as model:
        model.answer(CHATS, Sampling(4))
        assert weights() == [True]
    assert weights() == [False]
    assert model.source.base == str(tiny_model)


@pytest.mark.parametrize("on_policy", [True, False])
def test_no_weights_are_held_while_a_server_answers(tiny_model, tmp_path, weights, on_policy):
    pytest.importorskip("openai", reason="pip install 'tiebreak[server]' brings the client")
    notes, wanted = [], load_frozen(_asked(tmp_path, {"name": str(tiny_model)}).base.model).answer(CHATS, Sampling(4))
    with running(tiny_model) as fake:
        engine = {"base_url": fake.address, "model": "tiny", "weights": "as_served"}
        asked = _asked(tmp_path, {"name": str(tiny_model)}, engine=engine, on_policy=on_policy)
        with Lineup(asked, Silent()).answering(0, CHATS, notes.append) as server:
            assert weights() == [False, *([False] if on_policy else [])]
            assert [one.ids for one in server.answer(CHATS, Sampling(4))] == [one.ids for one in wanted]
    assert len(notes) == on_policy


@pytest.mark.parametrize("kind", ["revision", "base"])
def test_the_first_model_is_the_reference_of_later_rounds_with_its_revision_and_its_base(tmp_path, kind):
    lineup = Lineup(_asked(tmp_path, {"name": "org/name", kind: "told"}), Silent())
    first, second = lineup.config(1), lineup.config(2)
    assert getattr(first.model, kind) == "told"
    assert first.reference.model is None
    assert (second.reference.model, getattr(second.reference, kind)) == ("org/name", "told")
    assert (second.model.revision, second.model.base) == (None, None)


@pytest.mark.parametrize("kind", ["revision", "base"])
def test_the_policy_of_a_round_is_a_reference_without_revision_and_base(tmp_path, kind):
    asked = _asked(tmp_path, {"name": "org/name", kind: "told"}, start="first", reference="previous")
    second = Lineup(asked, Silent()).config(2)
    assert getattr(second.model, kind) == "told"
    assert second.reference.model == str(tmp_path / "round-01" / "train" / "policy")
    assert (second.reference.revision, second.reference.base) == (None, None)


@pytest.mark.parametrize("asked_as", [None, "{prompt} the cat"])
@pytest.mark.parametrize("is_plain", [True, False])
def test_older_pairs_on_prompts_that_are_held_out_are_not_trained_on_in_either_form(
    tiny_model, tmp_path, asked_as, is_plain
):
    """Also where the first model's answers to a held-out prompt made no pair, which would keep it out."""
    texts = [f"the {one} {two}" for one in ("cat", "dog", "mat", "park") for two in ("ran", "sat", "and", "yes", "no")]
    asks = [one if is_plain or not asked_as else asked_as.format(prompt=one) for one in texts]
    own = {
        "input": {"messages": [{"role": "user", "content": "the user"}]},
        "preferred_output": [{"role": "assistant", "content": "yes"}],
        "non_preferred_output": [{"role": "assistant", "content": "no"}],
    }
    made = {
        "prompts.jsonl": [{"prompt": one} for one in texts],
        "older.jsonl": [{"prompt": one, "chosen": "yes", "rejected": "no"} for one in asks],
        "loop/round-01/pairs.jsonl": [own],
        "loop/heldout/pairs.jsonl": [{"prompt": "the user ran", "chosen": "yes", "rejected": "no"}],
    }
    for name, told in made.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(tmp_path / name, told)
    more = {"asked_as": asked_as, "mix": [{"path": str(tmp_path / "older.jsonl")}], "num_heldout": 2}
    asked = _asked(
        tmp_path / "loop", {"name": str(tiny_model)}, prompts=str(tmp_path / "prompts.jsonl"), per_round=5, **more
    )
    asked.tree["data"] = {"heldout_share": 0.3}
    lineup, (renderer, context) = Lineup(asked, Silent()), load_renderer(asked.base.model, asked.base.data)
    walk = open_walk(asked.settings, asked.base.data, renderer, context.most, Silent())
    lineup.keep_apart(walk)
    found = prepare(lineup.config(1).data, renderer)
    num = walk.counts["num_heldout_at_hand"]
    assert num > 2
    assert found.report["dropped_by_reason"] == {"heldout_prompt": num}
    assert len(found.train) == 1 + len(texts) - num
