"""Small inputs that once failed, each tried as its user would: a table of case, what was seen, and whether it is right.

    python scripts/field_cases.py FOLDER [CASE...]

FOLDER holds one folder for each case. Every command runs as a process of its own in a copy of its folder. Exit 1 where
one is not as it should be. Some minutes on two CPU cores: two of the cases train the bundled model.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRUE = {
    "What is the capital of Australia?": "Canberra.",
    "How many legs does a spider have?": "A spider has eight legs.",
}


@dataclass(frozen=True)
class Done:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """Everything on one line."""
        return " ".join((self.out + self.err).split())


class Case:
    """A copy of a case's folder, in which commands run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, words: str, cwd: Path | None = None) -> Done:
        """Run a command, with `tiebreak` and `python` those of this process."""
        first, *rest = shlex.split(words)
        command = [sys.executable, *(["-m", "tiebreak"] if first == "tiebreak" else []), *rest]
        done = subprocess.run(command, cwd=cwd or self.folder, capture_output=True, text=True, check=False)
        if "Traceback" in done.stderr:
            raise AssertionError(f"{words}: a stack trace: {done.stderr.strip().splitlines()[-1][:160]}")
        return Done(done.returncode, done.stdout, done.stderr)

    def check(self, words: str) -> dict[str, Any]:
        """Return the report of `tiebreak check`."""
        done = self.run(f"tiebreak check {words} --json")
        found: dict[str, Any] = json.loads(done.out)
        return found | {"exit": done.code}

    def pairs(self, words: str) -> list[dict[str, Any]]:
        """Return the pairs that `tiebreak convert` writes of a file."""
        out = self.folder / "converted.jsonl"
        out.unlink(missing_ok=True)
        done = self.run(f"tiebreak convert {words} {out.name} --to openai")
        return [json.loads(line) for line in out.read_text("utf-8").splitlines()] if done.code == 0 else []

    def names(self, pattern: str) -> list[str]:
        """Return files of the case."""
        return sorted(path.name for path in self.folder.glob(pattern))


def is_true(pair: dict[str, Any]) -> bool:
    """Whether the right answer is the chosen one, of the two questions whose answer is known here."""
    asked = " ".join(str(message["content"]) for message in pair["input"]["messages"])
    right = next((answer for question, answer in TRUE.items() if question in asked), None)
    said = pair["preferred_output"][0]["content"]
    return right is None or said.strip().endswith(right)


def wanted(condition: object, seen: str) -> str:
    """Return what was seen, or raise AssertionError with it."""
    if not condition:
        raise AssertionError(seen[:300])
    return seen


def codes(report: dict[str, Any]) -> dict[str, int]:
    """Return how much each finding found."""
    return {finding["code"]: finding["count"] for finding in report.get("findings", [])}


# ------------------------------------------------------------------------------------------------------------ models


def lora_on_gpt2(case: Case) -> Iterator[str]:
    case.run("python make_model.py")
    done = case.run("tiebreak train my.yaml")
    yield wanted(done.code in (0, 1) and "error:" not in done.err, f"train: exit {done.code}")
    check = (
        "import torch; from tiebreak.config import load_config; from tiebreak.training.trained import load\n"
        "from tiebreak.engine.fused_lora import unfuse; from tiebreak.engine.compatibility import probe_pairs\n"
        "import sys, itertools\n"
        "for target in (['c_attn'], ['c_proj'], ['c_fc'], 'all-linear'):\n"
        "    p = load(load_config('my.yaml', {'adapter.target_modules': target, 'model.layout': 'plain'})).policy\n"
        "    torch.manual_seed(0)\n"
        "    ws = [(n, w) for n, w in p.network.named_parameters() if w.requires_grad]\n"
        "    [w.data.normal_(0, 0.1) for n, w in ws]\n"
        "    def grads():\n"
        "        p.network.zero_grad(); p.score(probe_pairs(p.network)).values.sum().backward()\n"
        "        return torch.cat([w.grad.flatten() for n, w in ws])\n"
        "    ours = grads(); unfuse(p.network); theirs = grads()\n"
        "    print(target, float((ours - theirs).norm() / theirs.norm()))\n"
    )
    (case.folder / "gradients.py").write_text(check)
    done = case.run("python gradients.py")
    apart = [float(line.rsplit(" ", 1)[1]) for line in done.out.splitlines()]
    yield wanted(
        len(apart) == 4 and max(apart) < 1e-5,
        f"gradients: at most {max(apart, default=9):.1g} from peft's {done.err[-200:]}",
    )


def template_without_system(case: Case) -> Iterator[str]:
    for name in case.names("*.jsonl"):
        done = case.run(f"tiebreak plan my.yaml --set data.train={name}")
        yield wanted(
            done.code and "leaves out" in done.said, f"plan {name}: exit {done.code}, {done.err.strip()[:120]}"
        )
    done = case.run("tiebreak train my.yaml")
    yield wanted(done.code and "leaves out" in done.said, f"train: exit {done.code}")


def reasoning(case: Case) -> Iterator[str]:
    for name in case.names("*.jsonl"):
        found, pairs = case.check(name), case.pairs(name)
        kept = sum("reasoning" in json.dumps(pair["preferred_output"]) for pair in pairs)
        yield wanted(
            kept == found["num_pairs"] > 0, f"{name}: {kept} of {found['num_pairs']} pairs written with reasoning"
        )


def nothing_fits(case: Case) -> Iterator[str]:
    found = case.check("pairs.jsonl --model smollm2-135m-instruct --max-length 8")
    seen = f"exit {found['exit']}, {found['num_used_records']} records used, {found['severities']}"
    yield wanted(found["exit"] == 1 and "unusable" in codes(found) and found["num_used_records"] == 0, seen)


def filled_nulls(case: Case) -> Iterator[str]:
    pairs = case.pairs("calls.parquet")
    nulls = sum("null" in json.dumps(pair["preferred_output"]) for pair in pairs)
    yield wanted(len(pairs) == 24 and nulls == 0, f"{len(pairs)} pairs, {nulls} with nulls in a call")


def positions_run_out(case: Case) -> Iterator[str]:
    case.run("python make_model.py")
    for words in ("train my.yaml", "plan my.yaml", "check pairs.jsonl --model model", "init pairs.jsonl --model model"):
        done = case.run(f"tiebreak {words}")
        yield wanted("64" in done.said, f"{words.split()[0]}: exit {done.code}; {numbers(done, '64')}")


def numbers(done: Done, number: str) -> str:
    """Return the first line that names a number."""
    lines = (done.err + done.out).splitlines()
    return next((" ".join(line.split())[:150] for line in lines if re.search(rf"\b{number}\b", line)), "")


def all_read(number: int) -> Callable[[Case], Iterator[str]]:
    """Return a case whose files are all read, so many pairs each."""

    def look(case: Case) -> Iterator[str]:
        for name in [*case.names("*.jsonl"), *case.names("*.json"), *case.names("*.csv")]:
            found = case.check(name)
            yield wanted(
                found.get("num_pairs") == number, f"{name}: {found.get('num_pairs')} pairs {found.get('message', '')}"
            )

    return look


def base_from_elsewhere(case: Case) -> Iterator[str]:
    case.run("python make_model.py")
    case.run("tiebreak train my.yaml")
    case.run("tiebreak export runs/my --out adapter --form adapter")
    elsewhere = Path(tempfile.mkdtemp())
    done = case.run(f"tiebreak export {case.folder}/runs/my --out merged", cwd=elsewhere)
    yield wanted(done.code == 0, f"export from elsewhere: exit {done.code} {done.err[:150]}")
    load = f"AutoPeftModelForCausalLM.from_pretrained({str(case.folder / 'adapter')!r})"
    (elsewhere / "load.py").write_text(f"from peft import AutoPeftModelForCausalLM\n{load}\n")
    done = case.run("python load.py", cwd=elsewhere)
    yield wanted(done.code == 0, f"peft from elsewhere: exit {done.code} {done.err[-150:]}")


def template_with_a_date(case: Case) -> Iterator[str]:
    said = until(case, "metrics.jsonl", lambda text: len(text.splitlines()) > 2)
    yield wanted("writes the date" in said, "the start says which date it keeps")
    time.sleep(61 - time.localtime().tm_sec)
    said = until(case, "train.log", lambda text: "resuming after" in text)
    yield wanted("resuming after" in said and "changed" not in said, "resumed in another minute")


def until(case: Case, file: str, enough: Callable[[str], bool]) -> str:
    """Return what training printed until a file says enough of it, and it was interrupted."""
    command = [sys.executable, "-m", "tiebreak", "train", "my.yaml"]
    log = case.folder / "train.log"
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=case.folder, stdout=out, stderr=subprocess.STDOUT)
        place = log if file == log.name else case.folder / "runs" / "my" / file
        for _ in range(400):
            time.sleep(1)
            if process.poll() is not None or (place.exists() and enough(place.read_text("utf-8"))):
                break
        process.send_signal(signal.SIGINT)
        process.wait()
    return log.read_text("utf-8")


def roles(case: Case) -> Iterator[str]:
    for name in case.names("*.jsonl"):
        found = case.check(name)
        number = 0 if name == "rejected_is_user.jsonl" else 24
        yield wanted(found["num_pairs"] == number, f"{name}: {found['num_pairs']} pairs, {found['dropped_by_reason']}")


def opened_reasoning(case: Case) -> Iterator[str]:
    done = case.run("tiebreak plan my.yaml --json")
    seen = f"plan: exit {done.code} {done.err[:200]}"
    yield wanted(done.code == 0 and "seam" not in done.said, seen)


def other_trainers(case: Case) -> Iterator[str]:
    known = {
        "accumulation": "pairs_per_step", "batch": "pairs_per_step", "epochs": "training.epochs",
        "lora": "adapter.rank", "prompt_length": "max_length", "remote": "never", "steps": "epochs", "targets": "list",
    }  # fmt: skip
    for name, word in known.items():
        done = case.run(f"tiebreak config {name}.yaml")
        line = done.err.strip()
        yield wanted(done.code == 2 and word in line and "\n" not in line, f"{name}: {line[:150]}")


# -------------------------------------------------------------------------------------------------------------- data


def index_verdict(case: Case) -> Iterator[str]:
    for name in ("pairs.jsonl", "index.csv"):
        done = case.run(f"tiebreak check {name}")
        yield wanted(done.code == 2 and "two ways" in done.said, f"{name}: exit {done.code}, asked")
        options = re.search(r"For places: (.*?);", done.err)
        pairs = case.pairs(f"{name} {options[1] if options else ''}")
        yield wanted(
            pairs and all(map(is_true, pairs)),
            f"{name} with the options that it prints: {len(pairs)} pairs, none inverted",
        )
    mapping = "-c prompt=prompt -c completion_a=response_a -c completion_b=response_b -c winner=label"
    done = case.run(f"tiebreak check pairs.jsonl {mapping}")
    yield wanted(done.code == 2 and "two ways" in done.said, "the mapping without a meaning is asked about, too")


def none_inverted(case: Case) -> Iterator[str]:
    for name in case.names("*.jsonl") + case.names("*.csv"):
        pairs = case.pairs(name)
        headers = sum(
            bool(re.search(r"Human:|Assistant:", str(message["content"])))
            for pair in pairs
            for message in pair["input"]["messages"]
        )
        right = sum(map(is_true, pairs))
        yield wanted(len(pairs) == right == 12 and not headers, f"{name}: {right} of {len(pairs)} pairs are right")


def belongs_to_the_prompt(case: Case) -> Iterator[str]:
    column = {
        "system_prompt": "one short sentence",
        "context": "Somebody asks",
        "history": "I have to think",
        "steps": "step by step",
    }
    for name, text in column.items():
        found, pairs = case.check(f"{name}.jsonl"), case.pairs(f"{name}.jsonl")
        inside = sum(text in json.dumps(pair) for pair in pairs)
        told = "unread_column" in codes(found)
        yield wanted(
            inside == len(pairs) > 0 or told, f"{name}: in {inside} of {len(pairs)} pairs{', told' if told else ''}"
        )


def pictures(case: Case) -> Iterator[str]:
    for name in case.names("*.jsonl"):
        found = case.check(name)
        yield wanted(found["dropped_by_reason"] == {"wrong_type": 12}, f"{name}: {found['dropped_by_reason']}")


def tournament(case: Case) -> Iterator[str]:
    found = case.check("pairs.jsonl")
    yield wanted(codes(found).get("cycle") == 2, f"check: {codes(found).get('cycle')} pairs close circles")
    case.run("tiebreak clean pairs.jsonl cleaned")
    kept = len((case.folder / "cleaned" / "kept.jsonl").read_text("utf-8").splitlines())
    again = case.check("cleaned/kept.jsonl")
    yield wanted("cycle" not in codes(again) and kept >= 194, f"clean keeps {kept} of 198, free of circles")


def next_command(case: Case) -> Iterator[str]:
    mapping = "-c prompt=input -c completion_a=output_1 -c completion_b=output_2 -c winner=label"
    done = case.run(f"tiebreak check odd.jsonl {mapping}")
    for line in done.out.splitlines():
        if line.strip().startswith("tiebreak "):
            ran = case.run(line.strip().replace(" OUT", " cleaned"))
            yield wanted(ran.code == 0, f"{line.strip()[:90]}…: exit {ran.code}")
    done = case.run("tiebreak clean odd.jsonl nothing")
    yield wanted(done.code, f"clean without the mapping: exit {done.code}")


def longer_than_the_model(case: Case) -> Iterator[str]:
    source = next(case.folder.parent.parent.glob("cases/06-*/make_model.py"), None) or case.folder / "make_model.py"
    shutil.copy(source, case.folder / "make_model.py")
    case.run("python make_model.py 512")
    done = case.run("tiebreak init long.jsonl -m model")
    length = re.search(r"max_length: (\d+)", done.out)
    yield wanted(length and int(length[1]) <= 512, f"init: max_length {length and length[1]}; {numbers(done, '512')}")
    done = case.run("tiebreak check long.jsonl --model model")
    yield wanted("512" in done.said, f"check: {numbers(done, '512')}")
    done = case.run("tiebreak plan --set model.name=model --set data.train=long.jsonl --set data.max_length=4096")
    yield wanted("512" in done.said, f"plan: exit {done.code}; {numbers(done, '512')}")


def but_for_a_blank(case: Case) -> Iterator[str]:
    found = case.check("pairs.jsonl")
    yield wanted(
        codes(found).get("contradiction") == 12, f"check: {codes(found).get('contradiction')} contradictory pairs"
    )
    case.run("tiebreak clean pairs.jsonl cleaned")
    kept = len((case.folder / "cleaned" / "kept.jsonl").read_text("utf-8").splitlines())
    yield wanted(kept == found["num_pairs"] - 12, f"clean keeps {kept} of {found['num_pairs']}")


def verdict_names(case: Case) -> Iterator[str]:
    votes = "votes.jsonl -c prompt=topic -c completion_a=a1 -c completion_b=a2 -c votes=votes"
    for words in (votes, "models.jsonl"):
        pairs = case.pairs(words)
        yield wanted(pairs and all(map(is_true, pairs)), f"{words.split()[0]}: {len(pairs)} pairs, none inverted")


CASES: dict[str, Callable[[Case], Iterator[str]]] = {
    "01": lora_on_gpt2,
    "02": template_without_system,
    "03": reasoning,
    "04": nothing_fits,
    "05": filled_nulls,
    "06": positions_run_out,
    "07": all_read(24),
    "08": base_from_elsewhere,
    "09": template_with_a_date,
    "10": all_read(24),
    "11": roles,
    "12": all_read(24),
    "13": opened_reasoning,
    "14": other_trainers,
    "d01": index_verdict,
    "d02": none_inverted,
    "d03": none_inverted,
    "d04": none_inverted,
    "d05": belongs_to_the_prompt,
    "d06": pictures,
    "d07": none_inverted,
    "d08": tournament,
    "d09": next_command,
    "d10": longer_than_the_model,
    "d11": but_for_a_blank,
    "d12": verdict_names,
}


def main(folder: str, *only: str) -> int:
    """Try each case, or those that are named (d01, or d01-verdict-is-an-index); return 1 where one is not right."""
    wrong, wanted = 0, {name.partition("-")[0] for name in only}
    places = {place.name.partition("-")[0]: place for place in sorted(Path(folder).iterdir()) if place.is_dir()}
    if missing := sorted(wanted - places.keys()) or ([] if places else ["a folder for each case"]):
        sys.exit(f"{folder}: holds no {', '.join(missing)}")
    for name, place in places.items():
        if wanted and name not in wanted:
            continue
        copy = Path(tempfile.mkdtemp()) / "cases" / place.name
        shutil.copytree(place, copy)
        if name == "d10":
            shutil.copytree(next(Path(folder).glob("06-*")), copy.parent / "06-model", dirs_exist_ok=True)
        seen: list[str] = []
        try:
            seen.extend(CASES[name](Case(copy)) if name in CASES else ["no check is written for it"])
            verdict = "right" if name in CASES else "?"
        except (AssertionError, KeyError, ValueError, OSError) as error:
            seen.append(f"{type(error).__name__}: {error}" if not isinstance(error, AssertionError) else str(error))
            verdict, wrong = "WRONG", wrong + 1
        print(f"{verdict:5}  {place.name}")
        for line in seen:
            print(f"         {line}")
        sys.stdout.flush()
        shutil.rmtree(copy.parent.parent, ignore_errors=True)
    print(f"{wrong} wrong")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
