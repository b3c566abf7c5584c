"""rounds.json: what a loop of rounds is of, what became of each round, and which one is the best.

Owns that file: an entry for each round, filled station by station, and why the loop ended. Two goes at one loop are of
the same settings, or refused by the name of what changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tiebreak import files
from tiebreak.config import Rounds, quoted
from tiebreak.errors import RunError
from tiebreak.folders import LEDGER
from tiebreak.reporting.numbers import shown
from tiebreak.training.resumption import flat

SCHEMA = 1
PAGE = "rounds.html"
RUNNING, DONE, WAITING, INTERRUPTED, FAILED = "running", "done", "waiting", "interrupted", "failed"
_FREE = re.compile(
    r"rounds\.(count|stop\..*|on_policy|engine\..*)"
    r"|(rounds|evaluation)\.judge\.(max_c.*|num_.*|timeout.*|price_.*)"
)
"""What may change between two goes: more rounds, other bounds, more money or patience. A name at another address may be
another judge."""

_OF_ANSWERS = re.compile(r"model\.|data\.|the |held out|rounds\.(prompts|asked_as|heldout|num_heldout|sampling)")
"""What answers hang on. Until the first model's answers are judged, nothing else was used."""

STATES = ("begun", "sampled", "judged", "paired", "trained", "measured")
"""Of a round, in the order of its stations."""

Entry = dict[str, Any]


class Ledger:
    """What is known of a loop; each change is on the disk when it is made."""

    def __init__(self, folder: Path, told: dict[str, Any]) -> None:
        self._folder = folder
        self._told = told

    @staticmethod
    def begun(asked: Rounds, prompts: Mapping[str, Any], of: Mapping[str, str]) -> Ledger:
        """Return the ledger of a folder, new or gone on with; `prompts` is what the walk counted, with its digest.

        `of` are digests, by what they are of, that have to stay what they are.

        Raises RunError where the folder holds something else, or a loop of other settings.
        """
        folder, document = asked.folder, asked.folder / LEDGER
        identity = _identity(asked) | {"the prompts": prompts["digest"]} | dict(of)
        if not document.exists():
            if any(not path.name.startswith(".") for path in folder.iterdir()):
                raise RunError(f"{folder}: is not empty and no loop of rounds; choose another output.dir")
            day = asked.base.model.chat_template_date
            told = {"schema": SCHEMA, "status": RUNNING, "identity": identity, "day": day, "rounds": []}
            files.write_json(document, told)
        files.refuse_links(folder)
        told = files.read_json_object(document)
        before = told.get("identity")
        if told.get("schema") != SCHEMA or not isinstance(before, dict) or not isinstance(told.get("rounds"), list):
            raise RunError(f"{document}: is not as this version of tiebreak writes it; choose another output.dir")
        changed = [key for key in {**before, **identity} if before.get(key) != identity.get(key)]
        if changed := [key for key in changed if not _is_free(key, told)]:
            raise RunError(
                f"{folder}: holds rounds of another configuration ({', '.join(changed)} changed); put it back, or "
                "choose another output.dir"
            )
        found = Ledger(folder, told)
        told |= {"prompts": dict(prompts), "settings": asked.settings.model_dump(mode="json")}
        found.note(status=RUNNING, stopped=None, identity=identity)
        return found

    @property
    def told(self) -> Mapping[str, Any]:
        """All that it holds."""
        return self._told

    @property
    def rounds(self) -> list[Entry]:
        """The entries so far, the first round first."""
        found: list[Entry] = self._told["rounds"]
        return found

    def is_beyond(self, number: int, state: str) -> bool:
        """Say whether a round has come further than to a state."""
        return number <= len(self.rounds) and STATES.index(self.rounds[number - 1]["state"]) > STATES.index(state)

    @property
    def cost(self) -> float:
        """What all judging took, where it is priced."""
        entries = [self._told.get("heldout") or {}, *self.rounds]
        return sum(float(one.get(key) or 0.0) for one in entries for key in ("cost", "measuring_cost"))

    def note(self, **told: Any) -> None:
        """Keep something of the whole loop."""
        self._told |= told
        files.write_json(self._folder / LEDGER, self._told)

    def fill(self, number: int, **told: Any) -> Entry:
        """Keep something of a round, numbered from 1, and return its entry."""
        if number > len(self.rounds):
            self.rounds.append({"round": number, "state": "begun", "seconds": {}})
        entry = self.rounds[number - 1]
        seconds = entry["seconds"] | told.pop("seconds", {})
        entry |= told | {"seconds": seconds}
        self.note()
        return entry


def _is_free(key: str, told: Mapping[str, Any]) -> bool:
    """Say whether a setting may change: nothing that is there was made by it, or it moves nothing that is made."""
    if _FREE.fullmatch(key):
        return True
    return (told.get("heldout") or {}).get("state") != "measured" and not _OF_ANSWERS.match(key)


def day_of(folder: Path) -> str:
    """Return the day that a loop began, which chat templates that read the clock are told in all its rounds."""
    ledger = folder / LEDGER
    known = files.read_json_object(ledger).get("day") if ledger.exists() else None
    return known if isinstance(known, str) else datetime.now(UTC).date().isoformat()


def no_earlier(entry: Entry, state: str) -> str:
    """Return the later one of two states: a station that is passed again puts no round back."""
    known = str(entry["state"])
    return max(known, state, key=STATES.index)


def _identity(asked: Rounds) -> dict[str, Any]:
    """Return all settings that a loop hangs on, by their dotted keys."""
    own = _flat(asked.settings.model_dump(mode="json"), "rounds")
    return own | {key: value for key, value in flat(asked.base).items() if not key.startswith(("output.", "gate."))}


def _flat(tree: Any, key: str) -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {key: tree}
    return {name: told for part, value in tree.items() for name, told in _flat(value, f"{key}.{part}").items()}


def best_of(rounds: list[Entry], folder: Path) -> dict[str, Any] | None:
    """Return which measured round wins most often against the first model, of equal ones that of the lower KL.

    None where no round is measured by a judge.
    """
    known = [one for one in rounds if (one.get("measured") or {}).get("vs_first", {}).get("rate")]
    if not known:
        return None
    best = max(known, key=_merit)
    rate = best["measured"]["vs_first"]["rate"]
    is_certain = rate["low"] > 0.5
    number, share = best["round"], shown(rate, "share")
    told = f"{rate['num']} held-out prompts: {share} of its answers are preferred over the first model's, a tie is half"
    lead = "every round is certainly worse than" if rate["high"] < 0.5 else "no round is certainly better than"
    says = f"the best is round {number}, on {told}" if is_certain else (
        f"{lead} the first model; the best is round {number}, on {told}"
    )  # fmt: skip
    command = f"tiebreak export {quoted(str(folder))} --out {quoted(f'{folder.name}-round-{number}')}"
    found = {"round": number, "run": best["train"], "rate": rate, "is_certain": is_certain}
    return found | {"says": says, "command": command}


def _merit(entry: Entry) -> tuple[float, float, int]:
    measured = entry["measured"]
    kl = measured.get("kl_first")
    return measured["vs_first"]["rate"]["mean"], -(kl["k3"] if kl else 0.0), -entry["round"]
