"""Files to pairs: damaged, odd and hostile lines end as a reason with a line number, never as a stack trace."""

from __future__ import annotations

import gzip
import io
import json
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from tiebreak.config import DataConfig
from tiebreak.data.containers import MAX_LINE_BYTES
from tiebreak.data.reader import open_data, records
from tiebreak.data.whole import read_pairs
from tiebreak.errors import DataError

HH = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}


def line(prompt: str = "Why?", **more) -> bytes:
    return json.dumps({"prompt": prompt, "chosen": "Because.", "rejected": "No."} | more).encode() + b"\n"


GOOD = [line(f"Why {number}?") for number in range(3)]


# ----------------------------------------------------------------------------------------------------- what is accepted

ACCEPTED = {
    "plain": b"".join(GOOD),
    "no newline at the end": b"".join(GOOD).rstrip(),
    "blank lines": b"\n  \n" + GOOD[0] + b"\n\t\r\n" + GOOD[1] + GOOD[2] + b"\n\n",
    "byte order mark": b"\xef\xbb\xbf" + b"".join(GOOD),
    "CRLF": b"".join(GOOD).replace(b"\n", b"\r\n"),
    "gzip under a .jsonl name": gzip.compress(b"".join(GOOD)),
    "gzip in two members": gzip.compress(GOOD[0]) + gzip.compress(GOOD[1] + GOOD[2]),
    "gzip with a byte order mark and CRLF": gzip.compress(b"\xef\xbb\xbf" + b"".join(GOOD).replace(b"\n", b"\r\n")),
}


@pytest.mark.parametrize("content", ACCEPTED.values(), ids=ACCEPTED)
def test_the_wrapping_of_a_file_does_not_change_its_pairs(saved, content):
    found, plain = read_pairs(saved(content)), read_pairs(saved(b"".join(GOOD)))
    assert [pair.pair_id for pair in found.pairs] == [pair.pair_id for pair in plain.pairs]
    assert (found.num_records, len(found.pairs), found.dropped, found.format) == (3, 3, (), "trl")


def test_blank_lines_count_in_line_numbers(saved):
    found = read_pairs(saved(b"\n\n" + GOOD[0] + b"\n" + b"{\n"))
    assert str(found.pairs[0].source) == "pairs.jsonl:3"
    assert str(found.dropped[0].source) == "pairs.jsonl:5"


def test_line_separators_inside_text_do_not_end_a_line(saved):
    text = "a\u2028b\u0085c\x0bd\x1ce"
    content = json.dumps({"prompt": text, "chosen": text + "1", "rejected": text}, ensure_ascii=False).encode() + b"\n"
    assert read_pairs(saved(content * 2)).pairs[1].prompt[0].content == text


def test_an_object_with_a_hundred_thousand_keys_is_read(saved):
    assert read_pairs(saved(line(**{f"key{number}": number for number in range(100_000)}))).num_records == 1


def test_the_bundled_pairs_are_all_usable():
    found = read_pairs("bundled")
    assert found.num_records == len(found.pairs) >= 240
    assert not found.dropped


# ------------------------------------------------------------------------------------------------- what ends as dropped

BAD_LINES = {
    "truncated JSON": (GOOD[0][:-8] + b"\n", "bad_json"),
    "trailing comma": (GOOD[0].replace(b"}", b",}"), "bad_json"),
    "Python repr": (b"{'prompt': 'Why?', 'chosen': 'a', 'rejected': None}\n", "bad_json"),
    "two objects in a line": (GOOD[0].strip() + GOOD[0], "bad_json"),
    "words": (b"prompt,chosen,rejected\n", "bad_json"),
    "a second byte order mark": (b"\xef\xbb\xbf" + GOOD[0], "bad_json"),
    "a number of 5000 digits": (b'{"prompt": ' + b"9" * 5000 + b"}\n", "bad_json"),
    "lists nested 5000 deep": (b"[" * 5000 + b"]" * 5000 + b"\n", "bad_json"),
    "objects nested 5000 deep": (b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"\n", "bad_json"),
    "a control character in text": (b'{"prompt": "a\x01", "chosen": "b", "rejected": "c"}\n', "bad_json"),
    "NaN in a tool": (line(tools=[{"limit": float("nan")}]), "bad_json"),
    "a key given twice": (b'{"prompt": "a", "chosen": "b", "chosen": "d", "rejected": "c"}\n', "duplicate_key"),
    "a key given twice inside": (b'{"prompt": "a", "chosen": "b", "x": {"y": 1, "y": 1}}\n', "duplicate_key"),
    "half a surrogate pair": (line("\ud83d half"), "bad_unicode"),
    "half a surrogate pair in a tool": (line(tools=[{"name": "\ud83d"}]), "bad_unicode"),
    "invalid UTF-8": (GOOD[0].replace(b"Why", b"W\xff\xfe"), "bad_unicode"),
    "Latin-1": (line().replace(b"Why", "Où".encode("latin-1")), "bad_unicode"),
    "UTF-16": (GOOD[0].decode().strip().encode("utf-16") + b"\n", "bad_unicode"),
    "more than the cap": (line("x" * MAX_LINE_BYTES), "line_too_long"),
    "not an object": (b"[1, 2]\n", "not_an_object"),
    "null": (b"null\n", "not_an_object"),
    "text": (b'"\\n\\nHuman: a"\n', "not_an_object"),
    "another form": (b'{"messages": [], "label": true}\n', "wrong_format"),
    "the openai form": (json.dumps({"input": {}, "preferred_output": [], "non_preferred_output": []}).encode() + b"\n",
                        "wrong_format"),
    "the hh form": (json.dumps(HH).encode() + b"\n", "no_prompt"),
    "chosen missing": (b'{"prompt": "a", "rejected": "b"}\n', "wrong_format"),
    "chosen null": (b'{"prompt": "a", "chosen": null, "rejected": "b"}\n', "wrong_type"),
    "chosen a number": (b'{"prompt": "a", "chosen": 1, "rejected": "b"}\n', "wrong_type"),
    "chosen empty": (b'{"prompt": "a", "chosen": "", "rejected": "b"}\n', "empty_completion"),
    "unknown role": (line([{"role": "narrator", "content": "a"}]), "unknown_role"),
    "wrong turn order": (line([{"role": "assistant", "content": "a"}]), "turn_order"),
}  # fmt: skip


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize(("bad", "reason"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_dropped_with_reason_and_line_number(saved, bad, reason, zipped):
    content = GOOD[0] + bad + GOOD[1] + GOOD[2]
    found = read_pairs(saved(gzip.compress(content, 1) if zipped else content))
    assert [pair.source.line for pair in found.pairs] == [1, 3, 4]
    assert [(item.source.line, item.reason) for item in found.dropped] == [(2, reason)]
    assert found.num_records == 4
    assert len(found.dropped[0].detail) < 400
    assert "\n" not in found.dropped[0].detail


def test_a_bad_first_line_does_not_choose_the_form_of_the_file(saved):
    empty = json.dumps(HH | {"chosen": ""}).encode() + b"\n"
    found = read_pairs(saved(b"{\n" + b"{}\n" + empty + json.dumps(HH).encode()))
    assert found.format == "hh"
    assert [(item.source.line, item.reason) for item in found.dropped] == [
        (1, "bad_json"), (2, "wrong_format"), (3, "wrong_format"),
    ]  # fmt: skip


def test_a_named_form_is_not_guessed(saved):
    path = saved(GOOD[0] + json.dumps(HH).encode())
    found = read_pairs(path, "hh")
    assert (found.format, len(found.pairs), found.reasons) == ("hh", 1, {"wrong_format": 1})
    with pytest.raises(DataError, match=r"format 'HH' is not known; choose from auto, tiebreak, openai, "):
        read_pairs(path, "HH")


def test_every_record_is_counted_once_by_reason(saved):
    found = read_pairs(saved(b"".join([*GOOD, *(bad for bad, _ in BAD_LINES.values() if b"\x00" not in bad)])))
    assert found.num_records == 3 + len(found.dropped)
    assert sum(found.reasons.values()) == len(found.dropped)
    assert list(found.reasons.values()) == sorted(found.reasons.values(), reverse=True)
    lines = [pair.source.line for pair in found.pairs] + [item.source.line for item in found.dropped]
    assert sorted(lines) == list(range(1, found.num_records + 1))


# ------------------------------------------------------------------------------------------------ what refuses the file


@pytest.mark.parametrize(
    "content", [b"", b"\n \n\r\n", b"\xef\xbb\xbf", gzip.compress(b"")], ids=["empty", "blank", "BOM", "gzip"]
)
def test_a_file_without_records_is_refused(saved, content):
    with pytest.raises(DataError, match="the file holds no record"):
        read_pairs(saved(content))


BAD_ALONE = {
    name: bad
    for name, (bad, _) in BAD_LINES.items()
    if name not in ("the hh form", "a second byte order mark", "truncated JSON", "UTF-16", "words")  # words: a CSV file
}


@pytest.mark.parametrize("bad", BAD_ALONE.values(), ids=BAD_ALONE)
def test_a_file_of_bad_lines_only_is_refused_with_the_first_of_them(saved, bad):
    with pytest.raises(DataError, match=r"^pairs\.jsonl:1: .*no record of the file is usable\); see .*"):
        read_pairs(saved(bad * 2))


@pytest.mark.parametrize("name", ["truncated JSON", "UTF-16"])
def test_a_file_that_begins_as_no_container_is_refused_in_one_line(saved, name):
    with pytest.raises(DataError, match=r"^pairs\.jsonl:") as refusal:
        read_pairs(saved(BAD_LINES[name][0] * 2))
    assert "\n" not in str(refusal.value)


def test_more_dropped_than_allowed_is_refused(saved):
    path = saved(GOOD[0] * 9 + b"{\n")
    assert len(read_pairs(path, max_dropped_share=0.1).pairs) == 9
    with pytest.raises(DataError, match=r"pairs\.jsonl:10: .* 1 of 10 records are unusable.*max_dropped_share 0\.09"):
        read_pairs(path, max_dropped_share=0.09)


def test_a_missing_file_is_named_with_its_nearest_neighbour(saved):
    path = saved(GOOD[0])
    with pytest.raises(DataError, match=r"no such file\. Did you mean 'pairs\.jsonl'\?"):
        read_pairs(path.with_name("pair.jsonl"))
    assert len(read_pairs(path.parent).pairs) == 1
    with pytest.raises(DataError, match="no such file"):
        read_pairs(path / "below" / "a" / "file.jsonl")


@pytest.mark.parametrize("kept", [2, 9, 12, 200, -9, -1])
def test_a_cut_gzip_file_is_refused(saved, kept):
    content = gzip.compress(b"".join(line(f"{number * 7919}") for number in range(400)))
    with pytest.raises(DataError, match=r"pairs\.jsonl:\d+: the file is damaged here"):
        read_pairs(saved(content[:kept]))


def test_a_gzip_file_with_any_flipped_byte_is_read_or_refused(saved):
    content = gzip.compress(b"".join(line(f"{number * 7919}") for number in range(50)))
    refused = 0
    for place in range(2, len(content), 5):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        try:
            assert read_pairs(saved(bytes(damaged))).num_records == 50
        except DataError:
            refused += 1
    assert refused > len(content) / 5 * 0.8


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=300), zipped=st.booleans(), prefixed=st.booleans())
def test_random_bytes_are_read_or_refused(saved, content, zipped, prefixed):
    content = GOOD[0] * prefixed + content
    try:
        found = read_pairs(saved(gzip.compress(content) if zipped else content))
    except DataError as error:
        assert not prefixed or not zipped or "damaged" in str(error)
        return
    assert found.num_records == len(found.pairs) + len(found.dropped)
    assert found.num_records == sum(bool(row.strip()) for row in content.removeprefix(b"\xef\xbb\xbf").split(b"\n"))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_randomly_damaged_lines_are_counted(saved, data):
    lines = [bytearray(row) for row in GOOD]
    for _ in range(data.draw(st.integers(1, 5))):
        row = data.draw(st.sampled_from(lines))
        row[data.draw(st.integers(0, len(row) - 2))] = data.draw(st.integers(0, 255).filter(lambda byte: byte != 10))
    try:
        found = read_pairs(saved(b"".join(lines)))
    except DataError:
        return
    assert found.num_records == 3 == len(found.pairs) + len(found.dropped)


# ----------------------------------------------------------------------------------------------------------- real files


def test_the_real_hh_file_drops_exactly_its_known_defects(shared):
    """5 rows diverge before the last turn, 4 have an empty answer; 4 more hold two assistant turns in a row."""
    found = read_pairs(shared / "data" / "prefs" / "hh_harmless_base_test.raw.jsonl.gz", max_dropped_share=0.01)
    assert (found.format, found.num_records, len(found.pairs)) == ("hh", 2312, 2299)
    assert found.reasons == {"prompts_differ": 5, "empty_completion": 4, "turn_order": 4}
    lines = {reason: [item.source.line for item in found.dropped if item.reason == reason] for reason in found.reasons}
    assert lines == {
        "prompts_differ": [1255, 1689, 1951, 1953, 2037],
        "empty_completion": [87, 517, 926, 1104],
        "turn_order": [668, 764, 1320, 1850],
    }
    assert {i.detail for i in found.dropped if i.reason == "turn_order"} == {
        "a prompt turn 'assistant' follows 'assistant'"
    }


def test_the_real_hh_file_holds_two_prompts_twice(shared):
    found = read_pairs(shared / "data" / "prefs" / "hh_harmless_base_test.raw.jsonl.gz")
    assert Counter(Counter(pair.prompt_id for pair in found.pairs).values()) == {1: 2295, 2: 2}
    assert len({pair.pair_id for pair in found.pairs}) == 2299


def test_the_real_ultrafeedback_file_drops_exactly_its_known_defects(shared):
    found = read_pairs(shared / "data" / "prefs" / "ultrafeedback_binarized_1200.jsonl.gz", max_dropped_share=0.01)
    assert (found.format, found.num_records, len(found.pairs)) == ("trl", 1200, 1193)
    assert found.reasons == {"identical": 5, "empty_completion": 2}


@pytest.mark.parametrize(
    ("file", "form", "num_records", "num_pairs"),
    [
        ("prefs/llamafactory_dpo_en_demo.jsonl.gz", "sharegpt", 300, 300),
        ("prefs/pandalm_human_testset_votes.jsonl.gz", "votes", 999, 855),
        ("prefs/summedits_pairs.jsonl.gz", "columns", 1350, 1350),
        ("unpaired/gsm8k_model_solutions.jsonl.gz", "columns", 5276, 967),
        ("unpaired/llamafactory_kto_en_demo.jsonl.gz", "labelled_dialogue", 300, 1),
    ],
)
def test_every_real_file_is_read_in_its_own_form(shared, file, form, num_records, num_pairs):
    found = read_pairs(shared / "data" / file)
    assert (found.format, found.num_records, len(found.pairs)) == (form, num_records, num_pairs)
    assert sum(found.reasons.values()) == len(found.dropped) <= num_records - 1


# --------------------------------------------------------------------------------------------------------------- groups


def test_a_group_that_a_gap_has_made_a_fraction_is_the_same_group(saved):
    table = io.BytesIO()
    columns = {"prompt": ["a", "b"], "chosen": ["c", "c"], "rejected": ["d", "d"], "group": [1.0, None]}
    parquet.write_table(pa.table(columns), table)
    for content in (table.getvalue(), line(group=1.0) + line("b"), line(group=1) + line("b")):
        assert [pair.origin.group for pair in read_pairs(saved(content)).pairs] == ["1", None]


# -------------------------------------------------------------------------------------------------------------- sources


def test_a_source_with_a_form_of_its_own_is_not_read_by_the_columns_of_all(saved):
    odd = saved(b'{"q": "a", "good": "b", "bad": "c"}\n')
    columns = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    sources = [{"path": str(odd)}, {"path": str(saved(line())), "format": "trl"}]
    files = open_data(DataConfig(train=sources, columns=columns))
    assert [file.form.name for file in files] == ["columns", "trl"]
    assert [len(record.pairs) for file in files for record in records(file)] == [1, 1]


@pytest.mark.parametrize("row", ['{"dev": []}', '{"train": [], "test": []}', '{"data": []}', '{"rows": {}}'])
def test_a_file_whose_only_row_holds_empty_lists_is_a_record_that_is_told(saved, row):
    for content in (row, row + "\n"):
        with pytest.raises(DataError, match=r"^pairs\.jsonl:1: found the keys .* \(unknown_format; no record"):
            read_pairs(saved(content.encode()))


def test_pictures_in_a_row_of_no_known_form_are_told_by_their_column_and_no_mapping_is_proposed(saved):
    row = b'{"caption": "a cat", "jpg_0": "iVBORw0KGgo=", "jpg_1": "iVBORw0KGgo=", "label_0": 1.0}\n'
    with pytest.raises(DataError, match=r"^pairs\.jsonl:1: the row has 'jpg_0' \(text\); only text can be used"):
        read_pairs(saved(row))
