"""What is saved in rendering changes no id: every family of tokenizers gives what the plain algorithm gives."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import replace

import platformdirs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from bounds import hang_after
from tiebreak.config import DataConfig
from tiebreak.data.encoding import Encoder
from tiebreak.data.render import Renderer
from tiebreak.errors import RenderError
from tiebreak.records import FACTS, Message, Pair, TokenizedPair

BREAK = "\uf8f5"
ANCHORS = ("\n", ".", ":", "a")
LLAMA3, QWEN, O200K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)  # as the tokenizer files of these models spell them
CORPUS = [
    "the cat sat on the mat and the dog ran to the park, didn't it? It's 12 o'clock; yes: no. (a b) x=f(a) // café",
    "user assistant system yes no\n\nupon a time there was a cat.\nThe End of 1234 words  --  ok ok ok the cat's mat",
]

# ------------------------------------------------------------------------- the oracle: rendering as it was before speed


class PlainRenderer:
    """Every text tokenised whole, every prompt read anew: slow and plain."""

    def __init__(self, tokenizer, eos_ids, data):
        self.tokenizer, self.eos_ids, self.data = tokenizer, tuple(eos_ids), data
        added = tokenizer.added_tokens_decoder
        self.control = PlainBreaker(token.content for i, token in added.items() if token.special or i in eos_ids)
        self.any_added = PlainBreaker(token.content for token in added.values() if token.content.strip())

    def pair(self, pair):
        prompt = self.text(pair.prompt, generation=True)
        chosen_ids = self.completion(pair, pair.chosen, prompt)
        rejected_ids = self.completion(pair, pair.rejected, prompt)
        if chosen_ids == rejected_ids:
            raise RenderError("identical_tokens", "")
        whole = self.encode(prompt)
        kept = self.fitted(whole, self.data.max_length - max(len(chosen_ids), len(rejected_ids)))
        cut = len(whole) - len(kept)
        facts = {name: getattr(pair.preference, name) for name in ("weight", *FACTS)}
        return TokenizedPair(pair.pair_id, pair.prompt_id, tuple(kept), chosen_ids, rejected_ids, cut, **facts)

    def fitted(self, prompt_ids, room):
        if len(prompt_ids) <= room:
            return prompt_ids
        if self.data.truncation == "drop" or room < 1:
            raise RenderError("too_long", "")
        return prompt_ids[-room:]

    def completion(self, pair, message, prompt):
        full = self.text((*pair.prompt, message), generation=False)
        if not full.startswith(prompt):
            raise RenderError("seam", "")
        ids = self.encode(full[len(prompt) :], continuing=prompt)
        end = next((index for index, token in enumerate(ids) if token in self.eos_ids), None)
        body = ids if end is None else ids[:end]
        if not body:
            raise RenderError("empty_completion", "")
        return (*body, self.eos_ids[0] if end is None else ids[end])

    def text(self, messages, *, generation):
        made = []
        for message in messages:
            breaker = self.control if message.role == "assistant" else self.any_added
            made.append({"role": message.role, "content": breaker.closed(message.content)})
        return self.tokenizer.apply_chat_template(made, tokenize=False, add_generation_prompt=generation)

    def encode(self, text, continuing=""):
        ids = []
        for piece in text.split(BREAK):
            ids += self.continuation(piece, continuing) if continuing else self.ids(piece)
            continuing = continuing or piece
        return ids

    def ids(self, text):
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def continuation(self, text, before):
        if not text:
            return []
        for anchor in (before.rpartition(BREAK)[2], *ANCHORS):
            head, joint = self.ids(anchor), self.ids(anchor + text)
            if joint[: len(head)] == head:
                return joint[len(head) :]
        raise RenderError("seam", "")


class PlainBreaker:
    def __init__(self, tokens):
        self.tokens = sorted((token for token in tokens if len(token) > 1), key=len, reverse=True)
        self.begun = {token[:length] for token in self.tokens for length in range(1, len(token))}

    def closed(self, text):
        text = text.replace(BREAK, "")
        while any(token in text for token in self.tokens):
            text = self.once(text)
        return text + BREAK if any(text[start:] in self.begun for start in range(len(text))) else text

    def once(self, text):
        made, at = "", 0
        while at < len(text):
            found = next((token for token in self.tokens if text.startswith(token, at)), None)
            made += text[at] if found is None else found[0] + BREAK + found[1:]
            at += len(found or "x")
        return made


# ----------------------------------------------------------------------------------------------- families of tokenizers

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
BACK_TO_BACK = (
    "{{ '<s>' }}{% for m in messages %}{{ m['content'] + ('</s>' if m['role'] == 'assistant' else '') }}{% endfor %}"
)
INST = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ ' ' + m['content'] + '</s>' }}"
    "{% else %}{{ '<s>[INST] ' + m['content'] + ' [/INST]' }}{% endif %}{% endfor %}"
)
NO_TOKENS = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def special(*texts, **settings):
    return [AddedToken(text, special=True, normalized=False, **settings) for text in texts]


def byte_level(splits, normalizer=None, added=(), use_regex=False):
    raw = Tokenizer(models.BPE())
    raw.normalizer = normalizer
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)]
    )
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False))
    raw.add_tokens([*special("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>"), *added])
    return raw


def sentence_piece(normalizer, pre_tokenizer, added=()):
    raw = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    raw.normalizer, raw.pre_tokenizer = normalizer, pre_tokenizer
    bytes_ = [f"<0x{number:02X}>" for number in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=["<unk>", *bytes_], show_progress=False)
    raw.train_from_iterator(CORPUS, trainer)
    made = json.loads(raw.to_str())
    made["added_tokens"] = [token for token in made["added_tokens"] if token["content"] == "<unk>"]
    raw = Tokenizer.from_str(json.dumps(made))
    raw.add_tokens([*special("<s>", "</s>", "<|im_start|>", "<|im_end|>"), *added])
    return raw


def isolated(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def lines():
    return special("\n", "\n\n", "\n\n\n", "  ")


RAW = {
    "gpt2": lambda: byte_level([], use_regex=True),
    "smollm2": lambda: byte_level([pre_tokenizers.Digits(individual_digits=True)], use_regex=True),
    "llama3": lambda: byte_level([isolated(LLAMA3)]),
    "qwen": lambda: byte_level([isolated(QWEN)], normalizers.NFC()),
    "o200k": lambda: byte_level([isolated(O200K)]),
    "tiktoken": lambda: byte_level([pre_tokenizers.Split(Regex(LLAMA3), "removed", invert=True)]),
    "a split of its own": lambda: byte_level([isolated(r"\s+|\S+")]),
    "lower case": lambda: byte_level([], normalizers.Lowercase(), use_regex=True),
    "strips to the right": lambda: byte_level([], added=special("<tool>", rstrip=True), use_regex=True),
    "strips to the left": lambda: byte_level([], added=special("<tool>", lstrip=True), use_regex=True),
    "whole words": lambda: byte_level([], added=special("<tool>", "cat", single_word=True), use_regex=True),
    "a token of two words": lambda: byte_level([], added=special("the cat", "on <s> the"), use_regex=True),
    "a token that begins as one ends": lambda: byte_level([], added=special("x<", "s>a", "\n<|im_"), use_regex=True),
    "normalised tokens": lambda: byte_level([], added=[AddedToken("<think>", normalized=True)], use_regex=True),
    "llama2": lambda: sentence_piece(
        normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None
    ),
    "mistral": lambda: sentence_piece(None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False)),
    "metaspace": lambda: sentence_piece(None, pre_tokenizers.Metaspace(prepend_scheme="always")),
    "gemma": lambda: sentence_piece(
        normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous"), lines()
    ),
}
TEMPLATES = {"chatml": CHATML, "back to back": BACK_TO_BACK, "inst": INST, "no tokens": NO_TOKENS}
MADE = {}
NAMED = {"eos_token": "<|im_end|>", "bos_token": "<s>", "pad_token": "<|endoftext|>"}


def family(name, template="chatml"):
    from transformers import PreTrainedTokenizerFast

    if name not in MADE:
        MADE[name] = PreTrainedTokenizerFast(tokenizer_object=RAW[name](), **NAMED)
    made = copy.deepcopy(MADE[name])
    made.chat_template = TEMPLATES[template]
    return made


def outcome(renderer, pair):
    try:
        return renderer.pair(pair)
    except RenderError as error:
        return error.reason


marks = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<tool>", "<think>", "<unk>", "<|endoftext|>", "<0x41>"]
plain_words = [
    "the",
    " the",
    " cat",
    "it's",
    " didn't",
    "I'LL",
    " 1234",
    " x=f(a)",
    ",",
    ". ",
    "(",
    "o'clock",
    " café",
    "e\u0301",
]
spaces = [" ", "  ", "\n", "\n\n", "\t ", " \n", "\r\n", "\u00a0", "\u3000"]
pieces = (
    st.sampled_from(marks + plain_words + spaces)
    | st.builds(lambda mark, n: mark[:n], st.sampled_from(marks), st.integers(1, 6))
    | st.builds(lambda mark, n: mark[n:], st.sampled_from(marks), st.integers(1, 6))
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters=BREAK), max_size=3)
)
texts = st.lists(pieces, max_size=8).map("".join)
names = pytest.mark.parametrize("name", RAW)


@names
@pytest.mark.parametrize("template", TEMPLATES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_pair_renders_as_it_did(name, template, data):
    tokenizer = family(name, template)
    roles = data.draw(st.sampled_from([["user"], ["system", "user"], ["user", "assistant", "user"]]))
    prompt = tuple(Message(role, data.draw(texts)) for role in roles)
    pair = Pair(prompt, Message("assistant", data.draw(texts)), Message("assistant", data.draw(texts)))
    limits = DataConfig(
        max_length=data.draw(st.sampled_from([8, 40, 4096])),
        truncation=data.draw(st.sampled_from(["drop", "prompt_start"])),
    )
    eos = data.draw(st.permutations([tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("</s>")]))
    assert outcome(Renderer(tokenizer, eos, limits), pair) == outcome(PlainRenderer(tokenizer, eos, limits), pair)


@names
def test_many_pairs_in_a_row_render_as_they_did(name):
    """What is remembered of earlier pairs changes nothing of later ones."""
    tokenizer = family(name)
    made, plain = (kind(tokenizer, (tokenizer.eos_token_id,), DataConfig()) for kind in (Renderer, PlainRenderer))
    words_ = [word for line in CORPUS for word in line.split(" ")]
    said = [" ".join(words_[n : n + 7]) for n in range(len(words_))]
    for one, two, three in zip(said, said[1:], reversed(said[2:]), strict=False):
        pair = Pair((Message("user", one),), Message("assistant", two), Message("assistant", three))
        assert outcome(made, pair) == outcome(plain, pair)


@names
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_text_and_its_continuation_get_the_ids_that_they_got(name, data):
    tokenizer = family(name)
    before, text = data.draw(texts), data.draw(texts)
    encoder, plain = Encoder(tokenizer), PlainRenderer(tokenizer, (), None)
    assert encoder.ids(text) == plain.ids(text)
    try:
        wanted = plain.continuation(text, before)
    except RenderError:
        with pytest.raises(RenderError, match="cannot continue"):
            encoder.continuation(text, before)
    else:
        assert encoder.continuation(text, before) == wanted


@names
def test_a_tokenizer_in_rust_is_asked_without_its_wrapper(name):
    assert Encoder(family(name))._backend is not None


def test_a_family_that_does_more_than_its_backend_is_asked_itself():
    from transformers import PreTrainedTokenizerFast

    class Shouting(PreTrainedTokenizerFast):
        def _encode_plus(self, text, **kwargs):
            return super()._encode_plus(text.upper(), **kwargs)

    tokenizer = Shouting(tokenizer_object=RAW["gpt2"](), **NAMED)
    assert Encoder(tokenizer).ids("the cat") == tokenizer.encode("THE CAT", add_special_tokens=False)
    assert Encoder(tokenizer).ids("the cat") == family("gpt2").encode("THE CAT", add_special_tokens=False)


def test_real_pairs_render_as_they_did(shared):
    from transformers import AutoTokenizer

    from tiebreak.data.whole import read_pairs

    found = [*(platformdirs.user_cache_path("tiebreak") / "models").glob("smollm2-*")]
    if not found:
        pytest.skip("the bundled model is not in the cache")
    tokenizer = AutoTokenizer.from_pretrained(str(found[0]))
    limits = DataConfig(max_length=700, truncation="prompt_start")
    made, plain = (kind(tokenizer, (tokenizer.eos_token_id,), limits) for kind in (Renderer, PlainRenderer))
    for name in ("hh_harmless_base_test.raw", "ultrafeedback_binarized_1200", "llamafactory_dpo_en_demo"):
        for pair in read_pairs(shared / "data" / "prefs" / f"{name}.jsonl.gz").pairs[:120]:
            assert outcome(made, pair) == outcome(plain, pair)


# --------------------------------------------------------------------------------------------------------- what is kept


def test_limits_that_others_set_on_the_tokenizer_do_not_bite():
    tokenizer = family("gpt2")
    wanted = tokenizer.encode(CORPUS[0], add_special_tokens=False)
    encoder = Encoder(tokenizer)
    tokenizer(["the cat", "yes"], truncation=True, max_length=1, padding="max_length")
    assert encoder.ids(CORPUS[0]) == wanted


def test_a_renderer_crosses_to_another_process_without_its_memory():
    tokenizer = family("llama3")
    renderer = Renderer(tokenizer, (tokenizer.eos_token_id,), DataConfig())
    pair = Pair((Message("user", "the cat"),), Message("assistant", "yes it's"), Message("assistant", "no"))
    before = len(pickle.dumps(renderer))
    wanted = renderer.pair(pair)
    crossed = pickle.dumps(renderer)
    assert len(crossed) == before
    assert pickle.loads(crossed).pair(pair) == wanted


def test_a_batch_gives_what_one_by_one_gives():
    tokenizer = family("gpt2")
    renderer = Renderer(tokenizer, (tokenizer.eos_token_id,), DataConfig(max_length=20))
    good = Pair((Message("user", "a"),), Message("assistant", "yes"), Message("assistant", "no"))
    pairs = [good, replace(good, rejected=good.chosen), replace(good, prompt=(Message("user", "a b " * 30),)), good]
    one, two, three, four = renderer.examples(pairs)
    assert one == four == renderer.pair(good)
    assert [error.reason for error in (two, three)] == ["identical_tokens", "too_long"]


@pytest.mark.parametrize("text", ["x" * 10**6, " a" * 500_000, " " * 10**6, "<|im_" * 200_000, "a, " * 300_000])
def test_a_text_of_a_megabyte_takes_linear_time(text):
    encoder = Encoder(family("llama3"))
    with hang_after():
        encoder.ids("yes" + text)
        encoder.continuation("yes", text)
