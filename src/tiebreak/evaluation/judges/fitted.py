"""The data's own judge in a run folder: fitted once while training pairs are at hand, and found again afterwards.

Owns the file: its vectors as tensors, all else as JSON in their heading. Nothing is unpickled. A judge of other
weights, or of other pairs where these are at hand, is no judge of these.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from tiebreak.config import DataConfig, DataJudge
from tiebreak.engine.reference.kinds import Reference
from tiebreak.errors import ConfigError, DataError, one_line
from tiebreak.evaluation.judges.given import Fitting, Given
from tiebreak.evaluation.judges.judge import Judge
from tiebreak.evaluation.judges.leaning import Probe
from tiebreak.evaluation.judges.linear import Span
from tiebreak.evaluation.judges.own import SCHEMA, Calibration, OwnJudge, fit, identity_of
from tiebreak.files import write_bytes
from tiebreak.maths.stats import Estimate
from tiebreak.records import TokenizedPair


@contextlib.contextmanager
def make(_: DataJudge, given: Given) -> Iterator[Judge]:
    """Give the judge of a run's pairs; raises DataError where none can be made of them, or none that is to be used."""
    fitting = given.fitting
    if fitting is None:
        raise ConfigError("judge data: is fitted on the pairs of a run; train makes one, and evaluate uses it")
    if fitting.data.keeps_apart:
        raise DataError("it is fitted on pairs, and these are completions on their own; name a rule or another judge")
    judge = _read(fitting)
    train, heldout = (cast("Sequence[TokenizedPair]", side) for side in (fitting.train, fitting.heldout))
    pairs = fitting.reference, train, heldout
    if judge and fitting.train and judge.identity != identity_of(*pairs, fitting.seed, fitting.data):
        judge = None
    if judge is None and not fitting.train:
        raise DataError(
            f"{fitting.file} is not there, or was fitted on other weights or by another version, "
            "and training pairs are at hand only while a run trains"
        )
    if judge is None:
        judge = fit(*pairs, fitting.cut, given.progress, fitting.seed, fitting.data)
        _write(judge, fitting)
    if not judge.is_usable:
        raise DataError(judge.note)
    given.noted(judge.note)
    yield judge


def _weights(reference: Reference) -> str:
    with reference.model() as model:
        return model.digest()


def _write(judge: OwnJudge, fitting: Fitting) -> None:
    probe = vars(judge.probe)
    flat = {**{f"span.{name}": value for name, value in vars(judge.probe.span).items()}, **probe}
    told = {
        "schema": SCHEMA,
        "weights": _weights(fitting.reference),
        "identity": judge.identity,
        "elsewhere": judge.elsewhere,
        "data": fitting.data.model_dump(mode="json"),
        "numbers": {name: value for name, value in flat.items() if isinstance(value, float)},
        "calibration": asdict(judge.calibration),
    }
    vectors = {name: np.ascontiguousarray(value) for name, value in flat.items() if isinstance(value, np.ndarray)}
    fitting.file.parent.mkdir(exist_ok=True)
    said = json.dumps(told, allow_nan=False)
    write_bytes(fitting.file, save(vectors, {"told": said, "digest": _digest(said, vectors)}))


def _digest(said: str, vectors: Mapping[str, Any]) -> str:
    """Return a digest of all that the file says: an attempt that was cut off has put no seal on it yet."""
    content = hashlib.sha256(said.encode())
    for name, values in sorted(vectors.items()):
        content.update(f"{name} {values.dtype} {values.shape}".encode())
        content.update(values.tobytes())
    return content.hexdigest()


def _read(fitting: Fitting) -> OwnJudge | None:
    """Return the judge that the file holds; None where it is not there, or of other weights or another schema.

    Raises DataError.
    """
    if not fitting.file.is_file():
        return None
    try:
        with safe_open(fitting.file, framework="numpy") as file:
            kept = file.metadata()
            vectors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        told = json.loads(kept["told"])
        digest = _digest(kept["told"], vectors)
        if kept.get("digest", digest) != digest:  # none: it was fitted before they were written
            raise ValueError("it is damaged: its content and its digest differ")
        if told.get("schema") != SCHEMA or told["weights"] != _weights(fitting.reference):
            return None
        return _judge(told, vectors, fitting)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{fitting.file}: is not a judge as a run keeps one ({one_line(error, 100)}); remove it, and "
            "training again makes another"
        ) from None


def _judge(told: Mapping[str, Any], vectors: Mapping[str, Any], fitting: Fitting) -> OwnJudge:
    flat = {**vectors, **{name: float(value) for name, value in told["numbers"].items()}}
    span = Span(**{name.removeprefix("span."): value for name, value in flat.items() if name.startswith("span.")})
    probe = Probe(span=span, **{name: value for name, value in flat.items() if not name.startswith("span.")})
    kept = dict(told["calibration"])
    calibration = Calibration(**kept | {"agreement": Estimate(**kept["agreement"])})
    first, second = (tuple(map(int, ids)) for ids in told["elsewhere"])
    data = DataConfig.model_validate_json(json.dumps(told["data"]))
    return OwnJudge(fitting.reference, probe, (first, second), data, calibration, str(told["identity"]), fitting.cut)
