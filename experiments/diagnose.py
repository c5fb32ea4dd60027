"""`lewm diagnose`: is a model's latent space healthy, what does it hold, how far can it imagine?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from experiments.diagnose_page import picture, table
from experiments.pairs import unseen
from experiments.runs import at_least, exclusive, progress, provenance, read_json, say, write_json
from lewm import checkpoint
from lewm.data import EpisodeReader, split_episodes
from lewm.diagnosis import Diagnosis, Surprise, draw, examine, frames_to_encode
from lewm.models import WorldModel
from lewm.types import InputError

FOREIGN_SHARE = 0.5  # of a data set the model knows nothing of: scored on, the rest being for fitting probes


def diagnose(config: Mapping[str, Any]) -> Diagnosis:
    """Diagnose a model, print the table and write it and the picture; see `configs/diagnose.yaml`."""
    at_least(config, horizon=1, frames=100, threads=1)
    torch.set_num_threads(config["threads"])
    run, out = Path(config["run"]), Path(config["out"])
    model = checkpoint.load(run, plugins=config["plugins"])
    if checkpoint.find(run) == out:
        raise InputError(f"{out} is a checkpoint; say where the diagnosis goes, out=...")
    facts = checkpoint.provenance(run)
    reader = EpisodeReader(_data(run, config["data"]))
    _check_fits(model, reader)
    fitting, held = _episodes(reader, facts.get("data", {}))
    symmetries = {name: turn for name, turn in config["symmetries"].items() if turn is not None}
    truth = next((name for name in ("pose", "state") if name in reader.info.columns), None)
    frames, block = model.history + config["horizon"], model.action_block
    samples = [
        draw(
            reader,
            episodes,
            count=max(1, config["frames"] // length),
            frames=length,
            block=block,
            truth=truth,
            columns=model.columns,
        )
        for episodes, length in ((fitting, 2), (held, frames))
    ]
    with exclusive(out):
        with progress(frames_to_encode(*samples, symmetries), "diagnose", "frames") as bar:
            found = examine(model, *samples, symmetries, bar.update)
        write_json(
            out / "diagnosis.json",
            record(found)
            | {
                "data": reader.fingerprint,
                "truth_column": truth,
                "action_block": block,
                "windows": [[len(sample), sample.frames] for sample in samples],
                "episodes": [len(fitting), len(held)],
                "steps": facts.get("steps"),
                "seed": facts.get("seed"),
                **provenance(),
            },
        )
        picture(found, block).savefig(out / "diagnosis.png", dpi=130)
    say(table(found, model.config.latent_dim, {name: p_value(s) for name, s in found.surprises.items()}))
    say(f"\ndiagnose  {out / 'diagnosis.json'} and diagnosis.png, from {len(held)} episodes it has not seen")
    return found


def record(found: Diagnosis) -> dict[str, Any]:
    """A diagnosis as JSON values, with what follows from its numbers."""
    values = asdict(found)
    values["health"]["complaints"] = found.health.complaints
    values["rollout"] |= {"relative": found.rollout.relative, "action_gap": found.rollout.action_gap}
    for name, seen in found.surprises.items():
        values["surprises"][name] |= {"ratio": seen.ratio, "p": p_value(seen)}
    return _finite(values)


def p_value(seen: Surprise) -> float:
    """One-sided, of the paired t-test; NaN where there was nothing to test."""
    return float(stats.t.sf(seen.t, seen.pairs - 1)) if math.isfinite(seen.t) else math.nan


def _finite(value: Any) -> Any:
    """JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _data(run: Path, given: str | None) -> Path:
    """The data set asked for, else the one the run was trained on."""
    path = run / "train.json"
    if given is None and not path.exists():
        raise InputError(f"{run} does not say where its training data are (no train.json); give data=FOLDER")
    return Path(given or read_json(path)["data"])


def _episodes(reader: EpisodeReader, trained: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the episodes to fit probes on and of those to score on, which the model has not seen."""
    held = unseen(reader, trained)
    fitting = np.setdiff1d(np.arange(len(reader)), held)
    return (fitting, held) if len(fitting) else split_episodes(reader, FOREIGN_SHARE)


def _check_fits(model: WorldModel, reader: EpisodeReader) -> None:
    """Refuse data of another image shape or action dimension; other columns are the encoder's to check."""
    column = reader.info.columns.get("pixels")
    if "pixels" in model.columns and (column is None or tuple(column.shape) != model.image_shape):
        held = "none" if column is None else f"those of shape {tuple(column.shape)}"
        raise InputError(
            f"the model takes images of shape {model.image_shape}, {reader.folder} holds {held}; give data=... "
            "recorded as its training data were"
        )
    if len(reader.info.action_low) != model.action_spec.dim:
        raise InputError(
            f"the model takes actions of dimension {model.action_spec.dim}, {reader.folder} holds "
            f"{len(reader.info.action_low)}; give data=... of the same task"
        )
