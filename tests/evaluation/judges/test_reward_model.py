"""A reward model gives each conversation the number that it gets alone, whole, and refuses what is none."""

from __future__ import annotations

import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from judge_models import saved
from tiebreak.config.judges import RewardModelJudge
from tiebreak.engine.answers.answerer import Chat
from tiebreak.errors import ModelError
from tiebreak.evaluation.judges.judge import ByRating, Question
from tiebreak.evaluation.judges.reward_model import RewardModel
from tiebreak.records import Message

CHAT = Chat((Message("user", "the cat sat on the mat"),))
ANSWERS = ["yes", "the dog ran to the park and the cat sat", "no", "no no no", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    return saved(tmp_path_factory.mktemp("reward") / "llama", tokenizer)


def rater(folder) -> RewardModel:
    return RewardModel.load(RewardModelJudge(model=str(folder)))


def by_transformers(folder, answer: str) -> float:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    messages = [message.as_dict() for message in (*CHAT.messages, Message("assistant", answer))]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
    with torch.no_grad():
        return float(model(input_ids=ids).logits)


def test_a_rating_is_what_transformers_says_of_the_whole_conversation(folder):
    found = rater(folder).rate([CHAT] * 3, ANSWERS[:3])
    assert found == pytest.approx([by_transformers(folder, answer) for answer in ANSWERS[:3]], abs=1e-5)
    assert len(set(found)) == 3


def test_a_rating_does_not_hang_on_its_neighbours(folder):
    judge = rater(folder)
    together = judge.rate([CHAT] * 5, ANSWERS)
    alone = [judge.rate([CHAT], [answer])[0] for answer in ANSWERS]
    assert together == pytest.approx(alone, abs=1e-5)
    assert judge.rate([CHAT] * 5, ANSWERS[::-1]) == pytest.approx(together[::-1], abs=1e-5)


def test_without_a_padding_id_rows_are_rated_one_by_one(tmp_path, tokenizer, folder):
    bare = saved(tmp_path / "bare", tokenizer, pad_token_id=None)
    assert rater(bare).rate([CHAT] * 5, ANSWERS) == pytest.approx(rater(folder).rate([CHAT] * 5, ANSWERS), abs=1e-5)


def test_what_does_not_fit_is_not_cut_but_not_rated_and_counted(folder):
    judge = rater(folder)
    found = judge.rate([CHAT, CHAT], ["yes", "the cat sat " * 40])
    assert isinstance(found[0], float)
    assert re.fullmatch(r"too_long: \d+ tokens, and the classifier has 64 positions", found[1])
    [said] = ByRating(judge).prefer([Question(CHAT, "yes", "the cat sat " * 40)])
    assert (said.first, said.says) == (None, found[1])


def test_what_its_template_refuses_is_not_rated_and_says_so_by_the_code(folder):
    judge = rater(folder)
    judge._classifier.tokenizer.chat_template = "{{ raise_exception('no system') }}"
    [said] = ByRating(judge).prefer([Question(CHAT, "yes", "no")])
    assert (said.first, said.says.partition(":")[0]) == (None, "template")


@pytest.mark.parametrize("writes", [True, False])
@pytest.mark.parametrize("adds", [True, False])
def test_a_row_begins_with_exactly_one_bos_whoever_adds_it(folder, tmp_path, tokenizer, writes, adds):
    from tokenizers.processors import TemplateProcessing

    place = shutil.copytree(folder, tmp_path / "bos")
    bos = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    made = rater(folder)._classifier.tokenizer
    made.chat_template = ("<|endoftext|>" if writes else "") + made.chat_template
    if adds:
        made.backend_tokenizer.post_processor = TemplateProcessing(
            single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", bos)]
        )
    made.save_pretrained(place)
    ids = rater(place)._row(CHAT, "yes <|endoftext|> no")
    assert ids is not None
    assert list(ids).count(bos) == int(writes or adds)
    assert (ids[0] == bos) == (writes or adds)


def test_two_labels_are_refused(tmp_path, tokenizer):
    with pytest.raises(ModelError, match="has 2 labels; wanted a reward model"):
        rater(saved(tmp_path / "two", tokenizer, num_labels=2))


def test_a_language_model_is_no_reward_model(tiny_model):
    with pytest.raises(ModelError, match=r"is no sequence classifier .architectures: LlamaForCausalLM"):
        rater(tiny_model)


def test_an_adapter_is_no_reward_model(tiny_adapter):
    with pytest.raises(ModelError, match="is an adapter; merge it"):
        rater(tiny_adapter)


def test_a_head_that_the_file_lacks_is_not_filled_with_random_numbers(folder, tmp_path):
    place = shutil.copytree(folder, tmp_path / "headless")
    tensors = load_file(place / "model.safetensors")
    del tensors["score.weight"]
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 tensor .score.weight., and random numbers would stand in"):
        rater(place)


def test_pickled_weights_are_never_opened(folder, tmp_path):
    place = shutil.copytree(folder, tmp_path / "pickled")
    torch.save(load_file(place / "model.safetensors"), place / "pytorch_model.bin")
    (place / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"pytorch_model\.bin is pickled, and unpickling runs code"):
        rater(place)


def test_without_a_chat_template_no_conversation_is_shown(folder, tmp_path):
    place = shutil.copytree(folder, tmp_path / "bare")
    (place / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="has no chat template; save its tokenizer again with one"):
        rater(place)


def test_numbers_that_are_none_are_no_rating(folder, tmp_path):
    place = shutil.copytree(folder, tmp_path / "broken")
    tensors = load_file(place / "model.safetensors")
    tensors["score.weight"].fill_(torch.nan)
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    judge = rater(place)
    assert judge.rate([CHAT], ["yes"]) == ["not_finite: nan"]


def test_the_identity_is_that_of_the_weights_wherever_they_lie(folder, tmp_path, tokenizer):
    elsewhere = shutil.copytree(folder, tmp_path / "elsewhere")
    assert rater(elsewhere).identity == rater(folder).identity
    other = saved(tmp_path / "other", tokenizer, num_hidden_layers=1)
    assert rater(other).identity != rater(folder).identity
