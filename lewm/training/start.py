"""Fine-tuning: begin with the weights of another run instead of random ones."""

from __future__ import annotations

from collections.abc import Sequence

from lewm.models import WorldModel
from lewm.types import InputError, nearest


def start_from(model: WorldModel, source: WorldModel, only: Sequence[str] = ()) -> list[str]:
    """Copy weights and normalisers; returns the names of the heads that `source` has not, and that stay as they are.

    Args:
        only: parts to copy, `encoder`, `projector`, `predictor`, `heads`; none means everything, normalisers too.

    Raises:
        InputError: a tensor without its counterpart, but for those heads, or of another shape.
    """
    known = [name for name, _ in model.named_children()]
    for name in only:
        if name not in known:
            raise InputError(f"a model has no part '{name}' to start from: {nearest(name, known)}")
    own, given = (
        {k: v for k, v in m.state_dict().items() if not only or k.split(".")[0] in only} for m in (model, source)
    )
    fresh = {role for role in model.heads if not any(name.startswith(f"heads.{role}.") for name in given)}
    own = {
        name: tensor
        for name, tensor in own.items()
        if not (name.startswith("heads.") and name.split(".")[1] in fresh)
    }
    missing, unknown = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    if missing or unknown:
        raise InputError(
            f"the run to start from is of another model: it lacks {missing[:3]} and has {unknown[:3]} of its own; give the "
            "model and objective the settings it was trained with, or name the parts to take, init_only=[encoder]"
        )
    for name, tensor in given.items():
        if tensor.shape != own[name].shape:
            raise InputError(
                f"the run to start from is of another model: '{name}' has shape {tuple(tensor.shape)} there and "
                f"{tuple(own[name].shape)} here; give the model its settings, or name the parts to take, init_only=[encoder]"
            )
    model.load_state_dict(given, strict=False)
    return sorted(fresh)
