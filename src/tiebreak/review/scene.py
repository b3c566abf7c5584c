"""What stands on the screen of an item: its turns, both answers as text, with their differences, or as Markdown.

Owns how text from data is shown to people who compare, for both sides alike. What may be known of an item is the
desk's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markupsafe import Markup

from tiebreak.records import Message
from tiebreak.reporting.answers import differences
from tiebreak.reporting.visible import harmless
from tiebreak.review.showing import Showing

MOST_LINES, LINE = 8, 100
"""Lines of a prompt that stand unfolded, and characters that are counted as one."""
MOST_MARKDOWN = 100_000
"""Characters of an answer that is rendered."""

LOOKS = ("text", "differences", "markdown")

_ROLES = {"system": "System prompt", "developer": "System prompt", "user": "Asked", "assistant": "Earlier answer",
          "tool": "Result of a tool"}  # fmt: skip

# Nothing of an answer may lead elsewhere, load anything or be markup: links and pictures stay the text that they are.
_MARKDOWN = (
    MarkdownIt("commonmark", {"html": False})
    .enable(["table", "strikethrough"])
    .disable(["link", "image", "autolink", "reference", "html_block", "html_inline"])
)

Piece = tuple[str, bool]


@dataclass(frozen=True)
class Turn:
    """A message before the answers, under its title."""

    title: str
    text: str
    system: bool


@dataclass(frozen=True)
class Side:
    """An answer: pieces of text, and whether the other lacks them; or, where it was asked for, Markdown rendered."""

    key: str
    title: str
    pieces: Sequence[Piece]
    rendered: Markup | None = None


@dataclass(frozen=True)
class Scene:
    """An item as it is shown."""

    turns: Sequence[Turn]
    lead: str | None
    """What stands above the fold; None where all of the prompt does."""
    sides: Sequence[Side]
    look: str
    remark: str = ""


def scene(showing: Showing, look: str) -> Scene:
    """Return what is shown of an item under one of `LOOKS`; text and a remark where answers are too long for it."""
    turns = [_turn(message) for message in showing.prompt]
    texts = (showing.left, showing.right)
    pieces: Sequence[Sequence[Piece]] = [[(text, False)] for text in texts]
    rendered: Sequence[Markup | None] = [None, None]
    remark = ""
    if look == "differences":
        pieces = differences(*texts)
        if not any(differs for side in pieces for _, differs in side):
            remark = "The answers are too long for their differences to be marked, or differ in blanks alone."
    elif look == "markdown" and max(map(len, texts)) > MOST_MARKDOWN:
        look, remark = "text", "An answer is too long to be rendered: both are shown as text."
    elif look == "markdown":
        rendered = [_rendered(text) for text in texts]
    sides = [
        Side(key, title, [] if not text else piece, made if text else None)
        for key, title, text, piece, made in zip(
            ("left", "right"), ("Left", "Right"), texts, pieces, rendered, strict=True
        )
    ]
    return Scene(turns, _lead(turns), sides, look, remark)


def _turn(message: Message) -> Turn:
    title = _ROLES.get(message.role, message.role)
    return Turn(
        f"{title} ({message.name})" if message.name else title, message.content, message.role in ("system", "developer")
    )


def _lead(turns: Sequence[Turn]) -> str | None:
    """Return the first lines of what was asked last, where all turns together are more than stand unfolded."""
    lines = sum(1 + len(line) // LINE for turn in turns for line in turn.text.split("\n"))
    if lines + len(turns) - 1 <= MOST_LINES:
        return None
    first = "\n".join(turns[-1].text.split("\n")[:MOST_LINES])
    cut = first[: MOST_LINES * LINE]
    return cut if cut == turns[-1].text else f"{cut} …"


def _rendered(text: str) -> Markup:
    tokens = _MARKDOWN.parse(harmless(text))
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):  # the headings are those of the page
            token.tag = "p"
        if token.type == "heading_open":
            token.attrSet("class", "heading")
    # Entities become the characters that they name only here.
    return Markup(harmless(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {})))  # noqa: S704 - escaped by it
