"""How the code reads: lengths of functions and files, and how much of it is cut too small.

    python scripts/house.py                  # the numbers of src
    python scripts/house.py --most 25        # exit 1 where more than 25 % of all functions are private with one caller

A private function earns its name by a second caller, or by being one sentence of a paragraph above it; where more than
a quarter of all functions have one caller, a reader jumps more than they read. Callers are counted by name in the file.
"""

from __future__ import annotations

import argparse
import ast
import statistics
import sys
from collections import Counter
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
Function = ast.FunctionDef | ast.AsyncFunctionDef


def main() -> None:
    """Print the numbers; exit 1 where too much is cut too small."""
    options = _arguments()
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(options.folder.rglob("*.py"))}
    found = {path: functions(tree) for path, tree in trees.items()}
    lengths = sorted(length(one) for some in found.values() for one in some)
    chopped = [(path, one) for path, tree in trees.items() for one in one_caller_privates(tree)]
    share = 100 * len(chopped) / len(lengths)
    files = [len(path.read_text(encoding="utf-8").splitlines()) for path in trees]
    print(f"{len(files)} files of {statistics.median(files):.0f} lines (median), the longest {max(files)}")
    print(
        f"{len(lengths)} functions of {statistics.median(lengths):.0f} lines (median), "
        f"90th percentile {lengths[int(0.9 * (len(lengths) - 1))]}, the longest {lengths[-1]}"
    )
    print(f"{len(chopped)} are private with one caller: {share:.1f} %")
    if options.names:
        print(*(f"{path.relative_to(options.folder)}:{one.lineno} {one.name}" for path, one in chopped), sep="\n")
    sys.exit(options.most is not None and share > options.most and f"more than {options.most:g} %: join some")


def functions(tree: ast.AST) -> list[Function]:
    """Return every function and method of a file."""
    return [node for node in ast.walk(tree) if isinstance(node, Function)]


def one_caller_privates(tree: ast.AST) -> list[Function]:
    """Return the private functions that their file names exactly once, besides where they are defined."""
    named = Counter(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    named.update(node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return [
        one
        for one in functions(tree)
        if one.name.startswith("_") and not one.name.startswith("__") and named[one.name] == 1
    ]


def length(one: Function) -> int:
    """Return the lines of a function, its docstring among them."""
    return (one.end_lineno or one.lineno) - one.lineno + 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=SOURCE)
    parser.add_argument("--most", type=float, metavar="PERCENT", help="largest share of privates with one caller")
    parser.add_argument("--names", action="store_true", help="name them")
    return parser.parse_args()


if __name__ == "__main__":
    main()
