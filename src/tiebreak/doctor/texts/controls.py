"""Characters and strings that steer a chat model or hide from a reader: control tokens, role headers, hidden text.

Owns which strings count and where they are legitimate all the same: HTML that strikes a text out, a dialogue that the
prompt asked for, joiners that Persian, Indic scripts and emoji need. It knows nothing of tokenizers: rendering disarms
the tokens of the model at hand, here is what a file should not hold whatever the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple


class Hit(NamedTuple):
    """Where a rule found something in a text: what kind of thing, from `start` to before `end`."""

    kind: str
    start: int
    end: int


# --------------------------------------------------------------------------------------------------- control tokens

_ANGLED = re.compile(
    r"<(?:\|[A-Za-z][A-Za-z0-9_]{2,31}\|>"  # ChatML, Llama 3 and 4, Phi, Zephyr, GLM, Command R, gpt-oss
    r"|\uff5c[^\uff5c<>\n]{1,40}\uff5c>"  # DeepSeek
    r"|(?:start|end)_of_turn>"  # Gemma
    r"|</?SYS>>|/?s>"  # Llama 2, Mistral
    r"|(?:bos|eos|unk|pad)>|extra_id_\d{1,4}>|reserved_\d{1,4}>)"
)
_SQUARE = re.compile(r"\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]")
_AFTER_STRIKE = re.compile(r"\s{0,4}\[INST\]")


def control_tokens(text: str) -> Iterator[Hit]:
    """Yield the control strings of common chat models; the kind is the string itself."""
    strikes = 0
    for match in _ANGLED.finditer(text) if "<" in text else ():
        found, (start, end) = match.group(), match.span()
        strikes += found == "<s>"
        # HTML strikes texts out with these two, where `<s>` opens before `</s>` closes.
        if found == "<s>":
            is_mark = (start < 64 and not text[:start].strip()) or _AFTER_STRIKE.match(text, end) is not None
        else:
            is_mark = found != "</s>" or strikes == 0
        if is_mark:
            yield Hit(found, start, end)
    for match in _SQUARE.finditer(text) if "[" in text else ():
        yield Hit(match.group(), *match.span())


# ----------------------------------------------------------------------------------------------------- role headers

_HEADER = re.compile(
    r"\n(?:(?P<hash>#{2,3} {0,2}(?:Instruction|Response|Human|Assistant|User|System):(?!\s{0,4}```))"
    r"|(?P<blank>[ \t\r]{0,8}\n(?:Human|HUMAN|User|USER|Assistant|ASSISTANT):(?=\s))"
    r"|(?P<line>(?:Human|HUMAN|User|USER):(?=\s)))"
)
_TOKEN_HEADER = re.compile(
    r"<\|im_start\|>[ \t]?(?:system|user|assistant|tool)\b"
    r"|<\|start_header_id\|>[ \t]?(?:system|user|assistant|ipython|tool)\b"
    r"|<start_of_turn>[ \t]?(?:user|model)\b"
    r"|<\|(?:system|user|assistant)\|>"
    r"|\[INST\]"
)
_REPLY = re.compile(r"\n[ \t]{0,8}(?:Assistant|ASSISTANT|AI|Bot|Chatbot):(?=\s)")
_SPEAKER = re.compile(r"[\s*_>\"-]{0,8}(?!Assistant:|ASSISTANT:)[A-Z][\w .']{0,30}:[*_]{0,2}(?=\s)")
_DIALOGUE = r"dialog|conversation|transcript|script|screenplay|\bchat|interview|role.?play|\bskit\b|\bFAQ"
_ASKED = re.compile(rf"{_DIALOGUE}|Human:|User:|USER:", re.IGNORECASE)
_SPOKEN_OF = re.compile(_DIALOGUE, re.IGNORECASE)
_ASKS = re.compile(
    r"\n[ \t]{0,8}(?:(?:Human|HUMAN|User|USER):(?=\s)|#{2,3} {0,2}(?:Instruction|Human|User|Input):(?=\s))"
)
_REPLIES = re.compile(
    r"\n[ \t]{0,8}(?:(?:Assistant|ASSISTANT|AI|Bot|Chatbot):(?=\s)"
    r"|#{2,3} {0,2}(?:Response|Assistant|Output|Answer):(?=\s))"
)


def role_headers(completion: str, prompt: str = "") -> Iterator[Hit]:
    """Yield headers by which a completion goes on into another turn; the kind is the header.

    A prompt that speaks of a dialogue, or a completion that is one from its first line, explains plain headers such as
    `User:`; control strings (`<|im_start|>user`) and `### Instruction:` are headers wherever they stand.
    """
    if "<" in completion or "[" in completion:
        for match in _TOKEN_HEADER.finditer(completion):
            yield Hit(" ".join(match.group().split()), *match.span())
    if ":" not in completion:
        return
    text = "\n" + completion
    matches = list(_HEADER.finditer(text))
    dialogue = bool(matches) and (_ASKED.search(prompt) is not None or _SPEAKER.match(completion) is not None)
    last_reply = max((reply.start() for reply in _REPLY.finditer(text)), default=-1) if matches else -1
    for match in matches:
        if match.lastgroup == "hash" or (not dialogue and (match.lastgroup == "blank" or match.end() <= last_reply)):
            header = match.group().strip()
            yield Hit(header, match.end() - 1 - len(header), match.end() - 1)


def prompt_headers(prompt: str) -> Iterator[Hit]:
    """Yield headers by which a prompt brings turns of its own, as a transcript that nobody split does.

    Control strings are headers wherever they stand; plain ones where the prompt begins with one or ends in one, or has
    those of both sides and does not speak of a dialogue.
    """
    if "<" in prompt or "[" in prompt:
        for match in _TOKEN_HEADER.finditer(prompt):
            yield Hit(" ".join(match.group().split()), *match.span())
    if ":" not in prompt:
        return
    text = f"\n{prompt}\n"
    asks, replies = list(_ASKS.finditer(text)), list(_REPLIES.finditer(text))
    begins = bool(asks) and not text[: asks[0].start()].strip()
    ends = bool(replies) and not text[replies[-1].end() :].strip()
    if begins or ends or (asks and replies and _SPOKEN_OF.search(prompt) is None):
        for match in sorted([*asks, *replies], key=re.Match.start):
            header = match.group().strip()
            yield Hit(header, match.end() - 1 - len(header), match.end() - 1)


# ------------------------------------------------------------------------------------------------------ hidden text

_SET = "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
_HIDDEN = re.compile(_SET)
_HIDDEN_RUN = re.compile(f"{_SET}{_SET}*")  # the engine looks for the first of a set quickly, for `[x]+` it does not
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
# Letters between which U+200C and U+200D choose a form (Arabic, Syriac, Indic to Sinhala, Khmer, Mongolian).
_JOINING = re.compile("[\u0600-\u0dff\u1780-\u17ff\u1800-\u18af\ufb50-\ufdff\ufe70-\ufefc]")
# Letters between which U+200B says where a line may break (Thai, Lao, Tibetan, Myanmar, Khmer).
_UNSPACED = re.compile("[\u0e00-\u109f\u1780-\u17ff]")
_PICTURE = re.compile("[#*0-9\u00a9\u00ae\u203c-\u3299\ufe0f\U0001f000-\U0001faff]")
_FLAG = re.compile("\U0001f3f4[\U000e0020-\U000e007e]{1,8}\U000e007f")


def hidden_text(text: str) -> Iterator[Hit]:
    """Yield characters that a reader does not see and a model does, a run at a time: control, bidi, zero_width, tag."""
    for match in _HIDDEN_RUN.finditer(text):
        start, end = match.span()
        if end - start == 1 and _is_legitimate(text, start):
            continue
        # The tags that a flag emoji in front of a run needs are no part of it.
        flag = _FLAG.match(text, start - 1) if start else None
        start = flag.end() if flag else start
        for kind, characters in groupby(text[start:end], _hidden_kind):
            stop = start + len(list(characters))
            yield Hit(kind, start, stop)
            start = stop


def without_hidden(text: str) -> str:
    """Return the text without what `hidden_text` finds; a text without any comes back as it is."""
    found = list(hidden_text(text))
    if not found:
        return text
    starts = [0, *(hit.end for hit in found)]
    ends = [*(hit.start for hit in found), len(text)]
    return "".join([text[start:end] for start, end in zip(starts, ends, strict=True)])


def shown(text: str) -> str:
    """Return the text with every hidden character spelled out, such as `<U+202E>`."""
    return _HIDDEN.sub(lambda match: f"<U+{ord(match.group()):04X}>", text)


def _hidden_kind(character: str) -> str:
    if character < " " or character == "\x7f":
        return "control"
    if _BIDI.match(character):
        return "bidi"
    return "tag" if character >= "\U000e0000" else "zero_width"


def _is_legitimate(text: str, index: int) -> bool:
    character = text[index]
    before, after = text[index - 1 : index], text[index + 1 : index + 2]
    if character in "\u200c\u200d" and (_JOINING.match(before) or _JOINING.match(after)):
        return True
    if character == "\u200d":
        return bool(_PICTURE.match(before) and _PICTURE.match(after))
    if character == "\u200b":
        return bool(_UNSPACED.match(before) and _UNSPACED.match(after))
    return character in "\u200e\u200f\u061c" and _RIGHT_TO_LEFT.search(text, max(index - 64, 0), index + 64) is not None
