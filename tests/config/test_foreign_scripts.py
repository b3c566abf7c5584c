"""Of a shell script with several commands, the options of the one that learns from pairs, and no others."""

from __future__ import annotations

import contextlib
import time

import pytest

from tiebreak.config.foreign.reading import read_foreign
from tiebreak.config.foreign.translation import translated
from tiebreak.errors import ConfigError

PAIRS = "swift rlhf --rlhf_type dpo --model out/sft --learning_rate 1e-6"
TUNED = "swift sft --model org/base --learning_rate 1e-4 --num_train_epochs 5"


@pytest.mark.parametrize("between", ["\n", " && ", "; ", " || ", " & ", " | tee --append log\n"])
def test_the_options_of_another_command_are_not_this_one_s(script, between):
    for text in (TUNED + between + PAIRS, PAIRS + between + TUNED):
        found = read_foreign(script(text))
        assert found.settings == {"rlhf_type": "dpo", "model": "out/sft", "learning_rate": 1e-6}
        assert [why for name, why in found.unread.items() if name.startswith("swift sft in line ")] == [
            "another command"
        ]


def test_what_exports_the_result_names_no_model(script):
    text = """llamafactory-cli train --stage dpo --model_name_or_path org/base --finetuning_type lora
llamafactory-cli export --model_name_or_path org/base --adapter_name_or_path saves/dpo --export_dir merged
"""
    found = translated(script(text))
    assert "  name: org/base  # from model_name_or_path\n" in found.text
    assert found.left_out == {"llamafactory-cli export in line 2": "another command"}


@pytest.mark.parametrize(
    "text",
    [
        f"{PAIRS}\n{PAIRS} --beta 0.5\n",
        "python a.py --model_name_or_path m --beta 0.1\npython b.py --model_name_or_path n --beta 0.3\n",
        "for m in a b; do python dpo.py --beta 0.1; done\npython train_dpo.py --beta 0.3\n",
    ],
)
def test_of_several_that_may_be_meant_none_is_guessed(script, text):
    with pytest.raises(ConfigError, match=r"run.sh: 2 commands may be the one meant \(.* in line 1; .* in line 2\)"):
        read_foreign(script(text))


def test_a_command_is_read_whole_as_the_shell_reads_it(script):
    text = """#!/bin/bash
cd "$(dirname "$0")" && DIR=$(cd "$(dirname "$0")" && pwd)  # it's here
pip install --upgrade trl
cat > ds.yaml <<'END'
it's: no --option
END
train() {
  CUDA_VISIBLE_DEVICES=0,1 python train_dpo.py \\
    --dataset_name 'org/pairs;x' --run_name "a # b && c" \\
    --beta=0.2 --output_dir $DIR/out 2>&1 | tee log.txt
}
python eval.py --model_name_or_path out --max_length 4096 > eval.log
"""
    found = read_foreign(script(text))
    assert {key: value for key, value in found.settings.items() if key != "output_dir"} == {
        "dataset_name": "org/pairs;x",
        "run_name": "a # b && c",
        "beta": 0.2,
    }
    assert found.unread.keys() == {"pip install in line 3", "python eval.py in line 12"}


def test_a_list_of_options_stands_where_it_is_named_and_what_is_not_read_is_told(script):
    text = """ARGS=(
  --beta 0.2  # strong
  --loss_type sigmoid
)
MORE="--learning_rate 1e-5"
python dpo.py "${ARGS[@]}" --seed 3 $MORE "$@"
"""
    found = translated(script(text), "trl")
    assert "  beta: 0.2  # from beta\n" in found.text
    assert "  seed: 3  # from seed\n" in found.text
    assert "  learning_rate: 1.0e-06  # not seen there ($MORE, $@ may hold it): its default\n" in found.text
    assert found.left_out == {name: f"options by {name} are not read" for name in ("$MORE", "$@")}


def test_options_that_a_comment_cuts_off_are_told(script):
    found = read_foreign(script("python dpo.py \\\n  --beta 0.2 \\\n  # --seed 1 \\\n  --num_train_epochs 2\n"))
    assert found.settings == {"beta": 0.2}
    assert found.unread == {"--num_train_epochs in line 4": "in the shell the command ends before this line"}


@pytest.mark.parametrize(
    "before",
    [
        "cat <<A\npython dpo.py --seed 1\nA\n",
        "cat <<-'A'\npython dpo.py --seed 1\n\tA\n",
        "cat <<A <<B\nA\npython dpo.py --seed 1\nB\n",
        "cat <<< A\n",
        "echo $((1<<2))\n",
        "cat <<NOWHERE\n",
    ],
)
def test_what_a_here_document_holds_is_no_option_and_what_ends_nowhere_is_none(script, before):
    assert read_foreign(script(f"{before}python dpo.py --beta 0.2\n")).settings == {"beta": 0.2}


@pytest.mark.parametrize("text", ["<<A\n" * 100_000, "cat <<A\nA\n" * 50_000, "<<A" * 200_000])
def test_many_here_documents_take_no_longer_than_their_lines(script, text):
    begun = time.process_time()
    with contextlib.suppress(ConfigError):
        read_foreign(script(text + "\npython dpo.py --beta 0.2\n"))
    assert time.process_time() - begun < 20
