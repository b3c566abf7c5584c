"""What a base model says of itself: taken as it is stated, and never guessed."""

from __future__ import annotations

import os

import huggingface_hub
import pytest

from tiebreak.engine import bundled
from tiebreak.engine.provenance import MAX_BYTES, Provenance, provenance
from tiebreak.engine.sources import Source


def _source(base, revision=None):
    return Source(str(base), revision, None, "x", "x")


def _stated(folder, card):
    (folder / "README.md").write_text(card, encoding="utf-8")
    return provenance(_source(folder))


@pytest.mark.parametrize(
    ("stated", "found"),
    [
        ("license: mit", {"license": "mit"}),
        ("license: [mit, apache-2.0]", {"license": ["mit", "apache-2.0"]}),
        (
            "license: other\nlicense_name: llama3\nlicense_link: https://a.example/LICENSE",
            {"license": "other", "license_name": "llama3", "license_link": "https://a.example/LICENSE"},
        ),
        ("license: mit\nlicense_link: /srv/me/LICENSE\nlanguage: en", {"license": "mit"}),
    ],
)
def test_the_licence_is_what_the_card_in_the_folder_states(tmp_path, stated, found):
    assert _stated(tmp_path, f"---\n{stated}\n---\n# A model\n") == Provenance(None, found)
    assert _stated(tmp_path, f"\ufeff---\r\n{stated}\r\n---\r\n".replace("\n\n", "\n")) == Provenance(None, found)


@pytest.mark.parametrize(
    "card",
    [
        "",
        "# Licence: MIT\n\nlicense: mit\n",
        "---\nlicense: mit\n",
        "---\nlicense: {a: b}\n---\n",
        "---\nlicense: [mit, 3]\n---\n",
        "---\nlicense: []\n---\n",
        '---\nlicense: "a\\nb: c"\n---\n',
        "---\n- mit\n---\n",
        "---\n: : {\n---\n",
        "---\n" + "[" * 5000 + "\n---\n",
        "---\nlicense: &a [*a]\n---\n",
        f"---\nlicense: {'x' * 200}\n---\n",
        f"---\n{'#' * MAX_BYTES}\nlicense: mit\n---\n",
    ],
    ids=lambda card: ascii(card[:24]),
)
def test_a_card_that_states_no_licence_leaves_it_unknown(tmp_path, card):
    assert _stated(tmp_path, card) == Provenance()


def test_a_card_that_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "README.md")
    assert provenance(_source(tmp_path)) == Provenance()


def test_a_hub_model_is_known_by_its_name_and_its_card(tmp_path, monkeypatch):
    asked = []

    def fetch(name, file, revision):
        asked.append((name, file, revision))
        (tmp_path / file).write_text("---\nlicense: gemma\n---\n")
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    assert provenance(_source("owner/name", "v1")) == Provenance("owner/name", {"license": "gemma"})
    assert asked == [("owner/name", "README.md", "v1")]


def test_a_hub_that_does_not_answer_leaves_the_licence_unknown(monkeypatch):
    def fail(*_, **__):
        raise OSError("offline")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    assert provenance(_source("owner/name")) == Provenance("owner/name")


def test_the_bundled_model_has_a_name_and_a_licence(monkeypatch, tmp_path):
    monkeypatch.setattr(bundled.platformdirs, "user_cache_path", lambda _: tmp_path)
    [(name, model)] = bundled.BUNDLED.items()
    folder = tmp_path / "models" / f"{name}-{model.sha256[:12]}"
    assert provenance(_source(folder)) == Provenance("HuggingFaceTB/SmolLM2-135M-Instruct", {"license": "apache-2.0"})
    folder.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    assert provenance(_source(tmp_path / "elsewhere")) == Provenance()
