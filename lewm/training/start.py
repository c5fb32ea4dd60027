"""Fine-tuning: begin with the weights of another run instead of random ones."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lewm.models import WorldModel
from lewm.types import InputError, nearest

ADVICE = (
    "give model and objective the settings of that run, or name the parts to take: init_only=[encoder,projector]"
)


def start_from(model: WorldModel, source: WorldModel, only: Sequence[str] = ()) -> list[str]:
    """Copy weights and normalisers; returns the model's heads that `source` lacks, which stay as they are.

    Args:
        only: parts to copy, `encoder`, `projector`, `predictor` or `heads`; none named is everything.

    Raises:
        InputError: a tensor without its counterpart, but for those heads, or of another shape.
    """
    known = [name for name, _ in model.named_children()]
    for name in only:
        if name not in known:
            raise InputError(f"a model has no part '{name}' to start from: {nearest(name, known)}")
    own, given = _tensors(model, only), _tensors(source, only)
    fresh = {role for role in model.heads if not any(name.startswith(f"heads.{role}.") for name in given)}
    own = {name: tensor for name, tensor in own.items() if _head(name) not in fresh}
    missing, unknown = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    if missing or unknown:
        raise InputError(
            "the run to start from has another model: it lacks "
            f"{missing[:3]} and has {unknown[:3]} besides; {ADVICE}"
        )
    for name, tensor in given.items():
        if tensor.shape != own[name].shape:
            raise InputError(
                f"the run to start from has another model: its '{name}' has shape {tuple(tensor.shape)}, expected "
                f"{tuple(own[name].shape)}; {ADVICE}"
            )
    model.load_state_dict(given, strict=False)
    return sorted(fresh) if not only or "heads" in only else []


def _tensors(model: WorldModel, only: Sequence[str]) -> dict[str, Tensor]:
    return {name: t for name, t in model.state_dict().items() if not only or name.partition(".")[0] in only}


def _head(name: str) -> str | None:
    kind, _, rest = name.partition(".")
    return rest.partition(".")[0] if kind == "heads" else None
