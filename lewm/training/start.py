"""Fine-tuning: begin with the weights of another run instead of random ones, and let parts of them be."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lewm.models import WorldModel
from lewm.types import InputError, nearest

LEAST = 0.02  # of the largest eigenvalue, added to each before its inverse is taken
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
    _check_parts(model, only, "to start from")
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


def freeze(model: WorldModel, parts: Sequence[str]) -> None:
    """Leave these parts as they are: they get no gradient, and a trainer keeps them in evaluation mode.

    Args:
        parts: `encoder`, `projector`, `predictor` or `heads`, as in `start_from`.

    Raises:
        InputError: there is no such part, or nothing is left to learn.
    """
    _check_parts(model, parts, "to freeze")
    for name in parts:
        model.get_submodule(name).requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(f"with {', '.join(parts)} frozen nothing is left to learn; freeze fewer parts")


@torch.no_grad()
def whiten(model: WorldModel, changes_ND: Tensor, power: float) -> None:
    """Turn latents z into (C / c)^(-power / 2) z, in the projector's last layer: what changes seldom counts more.

    C is the covariance of one block's changes (with a floor of 2 % of its largest eigenvalue), c its mean
    eigenvalue. To predictors and planners this is another encoder, whose squared distances, of errors as of goals,
    are Mahalanobis distances: a block that is pushed now and then weighs as much as an agent that always moves. So
    it is for models whose encoder and projector stay as they are, and whose predictor begins anew.

    Args:
        changes_ND: of the latents as they are.
    """
    spread, axes = torch.linalg.eigh(changes_ND.T.cov())
    tiny = torch.finfo(spread.dtype).tiny  # latents that do not change at all
    spread = (spread + LEAST * spread.max()).clamp(min=tiny) / spread.mean().clamp(min=tiny)
    last, weights_DD = model.projector[-1], (axes * spread ** (-power / 2)) @ axes.T
    last.weight.copy_(weights_DD @ last.weight)
    last.bias.copy_(weights_DD @ last.bias)


def settled(model: WorldModel) -> bool:
    """Whether latents stay as they are: neither encoder nor projector learns."""
    return not any(p.requires_grad for part in (model.encoder, model.projector) for p in part.parameters())


def learning(model: WorldModel) -> None:
    """Put a model into training mode, but for its frozen parts: no dropout, running statistics stay."""
    for part in model.train().children():
        learns = [parameter.requires_grad for parameter in part.parameters()]
        part.train(any(learns) or not learns)


def _check_parts(model: WorldModel, parts: Sequence[str], purpose: str) -> None:
    known = [name for name, _ in model.named_children()]
    for name in parts:
        if name not in known:
            raise InputError(f"a model has no part '{name}' {purpose}: {nearest(name, known)}")


def _tensors(model: WorldModel, only: Sequence[str]) -> dict[str, Tensor]:
    return {name: t for name, t in model.state_dict().items() if not only or name.partition(".")[0] in only}


def _head(name: str) -> str | None:
    kind, _, rest = name.partition(".")
    return rest.partition(".")[0] if kind == "heads" else None
