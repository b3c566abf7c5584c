"""Pictures, sound and video beside text, by the names and the shapes that people give them.

Owns what counts as one. It knows no form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from tiebreak.data.formats.form import Row

_BESIDE = r"(?!(?:has|is|num|no|with|count)_)(?:\w+[_-])?"
_NUMBER = r"(?:[_-]?\d{1,3})?"
_ENDS = rf"s?{_NUMBER}(?:[_-](?:path|file|filename|url|bytes|base64)s?)?{_NUMBER}"
_MEDIA = re.compile(
    rf"{_BESIDE}(?:image|img|picture|photo|video|audio|pixel_values|jpe?g|png|webp|mp[34]|wav){_ENDS}", re.IGNORECASE
)
# Names that may as well be of text: there, what they hold has to look like a file, or be one.
_MAYBE = re.compile(
    rf"{_BESIDE}(?:media|attachment|figure|screenshot|frame|speech|sound|pixel|clip|file){_ENDS}", re.IGNORECASE
)
_FILE = re.compile(
    r"\S{1,2000}\.(?:png|jpe?g|gif|webp|bmp|tiff?|svg|mp4|webm|avi|mov|wav|mp3|flac|ogg|m4a|pdf)|data:\w+/.*",
    re.IGNORECASE | re.DOTALL,
)
_NOTHING = frozenset({"", "none", "null", "nan", "n/a", "no", "yes", "true", "false", "0", "1", "[]", "{}"})


def media_in(row: Row) -> Iterator[str]:
    """Yield the columns that hold a picture, sound or video.

    A column of such a name that holds something, or one of any name that holds a file as data sets of the Hub do
    (an object with `bytes` or `path`). An empty cell is no picture.
    """
    for name, value in row.items():
        kind = _kind_of(name)
        if isinstance(value, str):
            held = value.strip().casefold() not in _NOTHING and (
                kind == "media" or (kind == "maybe" and _is_file(value))
            )
        elif isinstance(value, Mapping):
            is_file = "path" in value and not value.keys().isdisjoint(("bytes", "sampling_rate"))
            held = any(value.values()) and (is_file or kind == "media")
        elif isinstance(value, list):
            files = [
                item
                for item in value
                if isinstance(item, Mapping | bytes) or (isinstance(item, str) and _is_file(item))
            ]
            held = any(value) and (kind == "media" or (kind == "maybe" and bool(files)))
        else:
            held = isinstance(value, bytes) and bool(value) and kind is not None
        if held:
            yield name


def _is_file(text: str) -> bool:
    return _FILE.fullmatch(text.strip()) is not None


@lru_cache(maxsize=4096)
def _kind_of(name: str) -> str | None:
    if _MEDIA.fullmatch(name):
        return "media"
    return "maybe" if _MAYBE.fullmatch(name) else None
