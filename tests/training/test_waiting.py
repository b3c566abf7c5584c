"""How threads wait in a process of Python: set by the first verb, before torch is loaded, where nobody has set it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tiebreak.training.waiting import WAITING

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def _in_a_process(code: str, **given: str):
    environment = {name: value for name, value in os.environ.items() if name not in NAMES} | given
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


STEPS = """
import json, os, sys
told = lambda: {name: os.environ[name] for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT") if name in os.environ}
if BEFORE: sys.modules["torch"] = __import__("types").ModuleType("torch")  # as if it were loaded
import tiebreak
tiebreak.load_config(None)
seen = [told()]
try: tiebreak.history("nowhere")
except tiebreak.TiebreakError: seen.append(told())
print(json.dumps(seen))
"""


@pytest.mark.parametrize(
    ("given", "before", "seen"),
    [
        ({}, False, WAITING),
        ({}, True, {}),
        *(({name: "active"}, False, {name: "active"}) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")),
    ],
)
def test_the_first_verb_sets_it_unless_a_user_did_or_torch_is_loaded(given, before, seen):
    assert _in_a_process(STEPS.replace("BEFORE", str(before)), **given) == [given, seen]


# What loads torch is refused there, and says how it would have been loaded.
EVERY_VERB = """
import json, os, sys
seen = {}
class Refusing:
    def find_spec(self, name, *_):
        if name == "torch":
            seen.setdefault(verb, os.environ.get("OMP_WAIT_POLICY"))
            raise ImportError(name)
sys.meta_path.insert(0, Refusing())
words = {"clean": ["bundled", "out"], "export": ["run", "out"], "judge": ["run", "rule:repetition"], "train": [],
         "plan": [], "history": [], "rollback": [], "check": ["bundled"], "init": ["bundled"]}
for verb in ("train", "plan", "evaluate", "gate", "judge", "report", "export", "promote", "rollback", "history", "chat",
             "check", "clean", "init"):
    for name in [name for name in sys.modules if name.startswith("tiebreak")]:
        del sys.modules[name]
    os.environ.pop("OMP_WAIT_POLICY", None)
    import tiebreak
    from tiebreak import api
    api._run = lambda run: run  # as if there were one
    how = {"quiet": True} if verb not in ("gate", "report", "history") else {}
    try: getattr(tiebreak, verb)(*words.get(verb, ["run"]), **how)
    except Exception: pass
print(json.dumps(seen))
"""


def test_it_is_set_before_any_verb_loads_torch(here):
    seen = _in_a_process(EVERY_VERB)
    assert {"train", "evaluate", "export", "promote", "chat"} <= seen.keys()
    assert {*seen.values()} == {"passive"}
