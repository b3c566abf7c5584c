"""Every rule of the doctor: code, how grave a finding is, what `clean` does, what is wrong, what to do.

Owns severities, actions and words. It finds nothing itself. Codes are stable: configurations name them (`data.allow`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "info"]
Action = Literal["reject", "quarantine", "fix", "warn"]
Of = Literal["records", "pairs", "completions", "prompts", "annotators", "files"]
"""What findings count."""
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
ACTIONS: tuple[Action, ...] = ("reject", "quarantine", "fix", "warn")


@dataclass(frozen=True)
class Rule:
    """One thing that can be wrong with preference data."""

    code: str
    severity: Severity
    action: Action
    """What `clean` does unless told otherwise: drop it, set it aside with its reason, mend it, or only say so."""
    title: str
    remedy: str

    @property
    def actions(self) -> tuple[Action, ...]:
        """What `clean` can do: rules about a whole file can only be told."""
        if self.code in FILE_RULES or self.code in TOKEN_RULES:
            return ("warn",)
        if self.code in READING_RULES:
            return ("reject",)
        return ACTIONS if self.action == "fix" else ("reject", "quarantine", "warn")


def _reading(code: str, title: str, remedy: str) -> Rule:
    return Rule(code, "warning", "reject", title, remedy)


def _rendering(code: str, title: str, remedy: str) -> Rule:
    """Return a rule that needs a tokenizer: training leaves such pairs out, `clean`, which has none, keeps them."""
    return Rule(code, "warning", "warn", title, remedy)


_READING = (
    _reading("bad_json", "not JSON", "write each record as one line of JSON"),
    _reading("bad_unicode", "not UTF-8 text", "save the file as UTF-8"),
    _reading("line_too_long", "line over the limit", "split the record or remove what is not text"),
    _reading("duplicate_key", "a key given twice in one object", "keep one of the two values"),
    _reading("bad_row", "a damaged row of a table", "give every row as many cells as the header has"),
    _reading("not_an_object", "a record that is no object", "write each record as a JSON object"),
    _reading("unknown_format", "a form that is not known", "name the columns with data.columns (docs/data.md)"),
    _reading("wrong_format", "another form than the rest of the file", "keep one form in a file"),
    _reading("wrong_type", "a value of the wrong type", "write texts as JSON strings"),
    _reading("unknown_role", "a role that no chat has", "use system, user, assistant or tool"),
    _reading("no_prompt", "no prompt", "add the messages that the completions answer"),
    _reading("no_completion", "no completion", "end both sides with an assistant message"),
    _reading("prompts_differ", "sides that answer different prompts", "make both sides share all but the last turn"),
    _reading("empty_turn", "an empty turn in the prompt", "remove the turn or restore its text"),
    _reading("turn_order", "turns out of order", "alternate user and assistant, system first"),
    _reading("empty_completion", "an empty completion", "remove the pair or restore the text"),
    _reading("identical", "chosen and rejected are the same", "remove the pair: it teaches nothing"),
    _reading("tie", "nobody won", "remove the record, or collect another judgement"),
    _reading("too_many_completions", "too many completions on one prompt", "split the record"),
    _reading("unpaired", "a judged completion without a partner", "judge a second completion of the same prompt"),
    _reading("not_good", "a bad completion, and the good ones are learned from", "nothing: it is left out on purpose"),
    _reading("contradictory_thumbs", "one completion both liked and disliked", "settle which of the two is meant"),
    _reading("tool_mismatch", "a tool message that answers no call", "keep calls and their results together"),
)
_RENDERING = (
    _rendering(
        "too_long",
        "more tokens than data.max_length or the model allows",
        "set data.truncation: prompt_start, or raise data.max_length where the model has more positions",
    ),
    _rendering("seam", "a template that rewrites the prompt", "use a template that only appends turns"),
    _rendering(
        "not_rendered",
        "a part that the chat template leaves out",
        "name a template that writes it as model.chat_template",
    ),
    _rendering("template", "refused by the chat template", "bring the messages into the order that the template wants"),
    _rendering("tokenizer", "refused by the tokenizer", "repair the text"),
    _rendering("identical_tokens", "the same tokens on both sides", "remove the pair: it teaches nothing"),
)
_PAIRS = (
    Rule(
        "contradiction",
        "error",
        "quarantine",
        "both A over B and B over A on one prompt, or one completion both liked and disliked",
        "settle which is meant; training on both teaches neither",
    ),
    Rule(
        "cycle",
        "error",
        "quarantine",
        "pairs that close a circle of preferences on one prompt",
        "no model can satisfy them: judge these again, or leave them out",
    ),
    Rule(
        "inverted_score",
        "error",
        "quarantine",
        "the rejected side has the better score or more votes",
        "swap the sides, or find out what the score means",
    ),
    Rule(
        "leak",
        "error",
        "quarantine",
        "a prompt on both sides of a given split",
        "keep all of a prompt on one side; numbers measured on leaked prompts are too good",
    ),
    Rule(
        "secret",
        "error",
        "quarantine",
        "keys, tokens or passwords in the text",
        "revoke them and remove the record: models repeat what they were trained on",
    ),
    Rule(
        "fully_truncated",
        "error",
        "warn",
        "nearly nothing is left of the prompt",
        "raise data.max_length; the completions would be learned without what they answer",
    ),
    Rule(
        "duplicate",
        "warning",
        "reject",
        "exactly the same as another",
        "keep one: what is repeated weighs more than the rest",
    ),
    Rule(
        "near_identical",
        "warning",
        "quarantine",
        "completions that differ only in case, spaces or punctuation",
        "look at them: the preference is about form alone, or an accident",
    ),
    Rule(
        "near_duplicate",
        "warning",
        "quarantine",
        "nearly the same as another",
        "keep one of each cluster, or accept that they weigh more",
    ),
    Rule(
        "near_leak",
        "warning",
        "quarantine",
        "a prompt nearly the same on both sides of a given split",
        "move one of them; held-out numbers are too good",
    ),
    Rule(
        "tied_score",
        "warning",
        "quarantine",
        "equal scores or votes on both sides",
        "remove the pair: the order of the sides is an accident",
    ),
    Rule(
        "role_header",
        "warning",
        "quarantine",
        "a completion that goes on into somebody else's turn",
        "cut the completion at its own end",
    ),
    Rule(
        "role_header_in_prompt",
        "warning",
        "warn",
        "a prompt with headers of turns in its text",
        "split the transcript into messages, or the model learns both sides of it as one",
    ),
    Rule("prompt_in_completion", "warning", "warn", "a completion that begins with its prompt", "cut the prompt there"),
    Rule(
        "missing_value",
        "warning",
        "warn",
        "a text that is the word for a missing one: None, nan, null, N/A",
        "write nothing there; where an answer is meant, leave it; --do missing_value=reject of the command clean",
    ),
    Rule(
        "personal_data",
        "warning",
        "quarantine",
        "e-mail addresses, phone, card or account numbers",
        "mask them, or be sure that you may train on them",
    ),
    Rule(
        "hidden_text",
        "warning",
        "fix",
        "characters that nobody sees: NUL, bidirectional marks, zero width",
        "the command clean removes them",
    ),
    Rule(
        "control_token",
        "warning",
        "warn",
        "control tokens of chat models inside the text",
        "tiebreak renders them as plain text; other tools turn them into real turns",
    ),
    Rule(
        "truncated",
        "warning",
        "warn",
        "prompts cut to data.max_length",
        "raise data.max_length where the start of the prompt matters",
    ),
    Rule(
        "beyond_context",
        "warning",
        "warn",
        "more tokens than the model was made for",
        "lower data.max_length: the model has never seen positions this far out",
    ),
    Rule(
        "low_confidence",
        "info",
        "warn",
        "a narrow vote or a soft label near one half",
        "weigh them less, or set them aside: --do low_confidence=quarantine of the command clean",
    ),
    Rule(
        "suspected_flip",
        "info",
        "warn",
        "pairs whose label looks turned round",
        "read the examples; --do suspected_flip=quarantine of the command clean sets them aside",
    ),
    Rule(
        "repeated_prompt",
        "info",
        "warn",
        "prompts with several pairs",
        "nothing, if meant: intervals and the split go by prompt, not by pair",
    ),
)
_FILE = (
    Rule(
        "unusable",
        "error",
        "warn",
        "too many records cannot be used",
        "repair the records below, or raise data.max_dropped_share",
    ),
    Rule("one_label", "error", "warn", "every completion has the same label", "bring completions of the other label"),
    Rule(
        "unread_column",
        "warning",
        "warn",
        "columns that are not read and that the prompt may need",
        "name the columns (docs/data.md): input=COLUMN below the prompt, system=COLUMN or history=COLUMN before it",
    ),
    Rule(
        "few_prompts",
        "warning",
        "warn",
        "few different prompts",
        "bring more prompts: intervals are wide and the model learns these by heart",
    ),
    Rule(
        "lone_thumbs",
        "warning",
        "warn",
        "completions that were judged one at a time, most without a partner to make a pair with",
        "look at each on its own with --pairing none, and learn from it so with loss: {name: kto}",
    ),
    Rule("uneven_labels", "info", "warn", "one label is rarer than the other", "weigh the rarer one more, as kto can"),
    Rule(
        "many_ties",
        "warning",
        "warn",
        "many records that nobody won",
        "look at some: a verdict that counts from zero is read as ties; write it as a and b, or map it (data.columns)",
    ),
    Rule(
        "shortcut_length",
        "warning",
        "warn",
        "length alone tells what is preferred",
        "balance the lengths, or use a loss of pairs that corrects for length; compare every result with this number",
    ),
    Rule(
        "shortcut",
        "warning",
        "warn",
        "surface features alone tell what is preferred",
        "find the feature below and balance it; a model can win here without getting better",
    ),
    Rule(
        "low_agreement",
        "warning",
        "warn",
        "annotators agree little more than chance",
        "sharpen the guideline, or train on unanimous pairs only",
    ),
    Rule(
        "unreliable_annotator",
        "warning",
        "warn",
        "annotators who disagree with all others",
        "look at their work before training on it",
    ),
    Rule(
        "label_noise",
        "warning",
        "warn",
        "labels that look turned round, in sum",
        "set loss.label_smoothing to the estimate, or clean the suspected pairs",
    ),
    Rule("licence", "info", "warn", "licences of the rows", "be sure that you may train on them"),
)
READING_RULES = frozenset(rule.code for rule in (*_READING, *_RENDERING))
TOKEN_RULES = frozenset({*(rule.code for rule in _RENDERING), "truncated", "fully_truncated", "beyond_context"})
FILE_RULES = frozenset(rule.code for rule in _FILE)
FINAL_RULES = frozenset({"one_label"})
"""Errors that stop training also where data.allow names them: nothing could be learned."""
RULES: dict[str, Rule] = {rule.code: rule for rule in (*_FILE[:1], *_PAIRS, *_FILE[1:], *_READING, *_RENDERING)}
