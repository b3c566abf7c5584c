"""`python -m tiebreak`, again and again, without paying four seconds of imports each time.

Started by the harness as a process of its own, with the folder of the model. It imports what a run imports, tries the
model's chat template, which is done once a process, computes nothing else, and forks for every job; the child is the
command line with its own arguments, environment, folder, limits and signals. Forking is sound only where there is a
single thread, which is checked before each fork.

The plots of a report are a third of what a tiny run computes, and are not what is disturbed here: they are left empty.
In the long form, and where a run is started as a user starts it, everything is as it is for a user.

One JSON document a line: {"start": job} is answered with a process id, {"poll": id} with an exit code or null.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import runpy
import signal
import sys
from pathlib import Path

# pyarrow's allocator starts a thread of its own when it is imported; it is read at that moment.
os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
sys.path.append(str(Path(__file__).parents[1]))
import plots

IMPORTS = (
    "matplotlib.pyplot",
    "matplotlib.backends.backend_svg",
    "peft.utils.transformers_weight_conversion",
    "rich._emoji_codes",
    "scipy.sparse.csgraph",
    "scipy.special",
    "pandas",  # which pyarrow loads where it is there
    "plotly",
    "safetensors.numpy",
    "tiebreak.api",
    "typer._adapters",
    "tiebreak.verbs.train",
    "tiebreak.training.attempt",
    "tiebreak.reporting.page",
    "tiebreak.verbs.evaluate",
    "tiebreak.verbs.export",
    "transformers.models.llama.modeling_llama",
    "tiebreak.campaigns.rounds",
    "tiebreak.cli.app",
)


def try_template(model: str) -> None:
    """Let what a process remembers of a template be there before it is copied."""
    from transformers import AutoTokenizer

    from tiebreak.data.templates import fault_of

    tokenizer = AutoTokenizer.from_pretrained(model)
    assert fault_of(tokenizer.chat_template, dict(tokenizer.special_tokens_map)) is None


def serve() -> dict | None:
    """Answer requests; return a job in the child that has to do it, None in the parent when nobody asks any more."""
    ended: dict[int, int] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            assert num_threads() == 1, "a fork would copy one thread of several"
            answer = os.fork()
            if answer == 0:
                return request["start"]
        else:
            answer = exit_code(request["poll"], ended)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    return None


def exit_code(pid: int, ended: dict[int, int]) -> int | None:
    if pid not in ended:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found == 0:
            return None
        ended[pid] = os.waitstatus_to_exitcode(status)
    return ended[pid]


def num_threads() -> int:
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.is_dir() else 1


def become(job: dict) -> None:
    """Turn this process into the one that the job describes."""
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environment"])
    new = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for number, (path, flags) in enumerate([(os.devnull, os.O_RDONLY), (job["out"], new), (job["err"], new)]):
        os.dup2(os.open(path, flags), number)
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU):
        signal.signal(one, signal.default_int_handler if one == signal.SIGINT else signal.SIG_DFL)
    if job["more_memory"] is not None:
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + job["more_memory"]
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    if job["dies_at"] is not None:
        die_at(job["dies_at"])
    sys.argv = ["tiebreak", *job["words"]]


def die_at(touch: int) -> None:
    """Be killed right before this process touches the file system for the so-manieth time, wherever that is."""

    def count(event: str, _: tuple) -> None:
        nonlocal touch
        touch -= event == "open" or event.startswith("os.")
        if touch == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


if __name__ == "__main__":
    for name in IMPORTS:
        importlib.import_module(name)
    try_template(sys.argv[1])
    plots.leave_empty()
    gc.collect()
    gc.freeze()  # a child that looks for garbage would copy all that is loaded, to find none
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    todo = serve()
    if todo is not None:
        become(todo)
        runpy.run_module("tiebreak", run_name="__main__", alter_sys=False)
