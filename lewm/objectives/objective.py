"""The objective of a world model: a prediction error, a regulariser against collapse, and auxiliary terms.

    total = prediction + w_r regulariser + sum_i w_i auxiliary_i

Each is a part with a name; an objective is a choice of parts. Gradient flows into predictions and targets alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from lewm.objectives.encoded import Encoded, LossTerms
from lewm.registry import part, register
from lewm.types import InputError


class Term(Protocol):
    """A scalar of a batch, with its weight in the sum.

    Attributes:
        weight: of the term in the total.
        heads: role -> `{"name": ...}` of the modules it learns; they are built into the model and saved with it.
        link: the model's link that it is made for (`lewm.models.links`).
        label: what it is called in the logs.
    """

    weight: float
    heads: Mapping[str, Mapping[str, Any]]
    link: str
    label: str

    def __call__(self, encoded: Encoded) -> Tensor:
        """The term before its weight."""


class Auxiliary:
    """Base of auxiliary terms: a weight, and no head or link unless a subclass names some."""

    heads: Mapping[str, Mapping[str, Any]] = {}
    link = "none"
    label = "auxiliary"

    def __init__(self, *, weight: float = 1.0) -> None:
        if not weight >= 0:
            raise InputError(f"the weight of {self.label} must be at least 0, got {weight}")
        self.weight = weight

    def __call__(self, encoded: Encoded) -> Tensor:
        """The term before its weight."""
        raise NotImplementedError


@register("objective", "lejepa")
class Objective:
    """LeWM's two losses, next-embedding prediction plus SIGReg (arXiv 2603.19312, equation 4), or other parts.

    Args:
        prediction: what is predicted: `one_step`, `open_loop`, `prefixes`.
        regulariser: what keeps the latents from collapsing.
        auxiliary: further terms, by name or as `{name: ..., weight: ...}`.
    """

    def __init__(
        self,
        *,
        prediction: Any = "one_step",
        regulariser: Any = "sigreg",
        auxiliary: Sequence[Any] = (),
    ) -> None:
        self.prediction = part("prediction", prediction)
        self.regulariser: Term = part("regulariser", regulariser)
        self.auxiliary: list[Term] = [part("auxiliary", term) for term in auxiliary]
        labels = [term.label for term in self.auxiliary]
        if len({*labels, "prediction", "regularisation"}) < len(labels) + 2:
            raise InputError(f"auxiliary terms must differ, got {labels}")

    @property
    def heads(self) -> dict[str, Mapping[str, Any]]:
        """Role -> `{"name": ...}` of the modules that its terms learn."""
        found: dict[str, Mapping[str, Any]] = {}
        for term in (self.regulariser, *self.auxiliary):
            for role, spec in term.heads.items():
                if found.setdefault(role, spec) != spec:
                    raise InputError(
                        f"{term.label} needs the head '{role}' as {dict(spec)}, a term before it as "
                        f"{dict(found[role])}: give both the same settings"
                    )
        return found

    @property
    def link(self) -> str:
        """The model's link that its terms are made for."""
        links = {term.link for term in (self.regulariser, *self.auxiliary)} - {"none"}
        if len(links) > 1:
            raise InputError(f"terms made for different links cannot be joined: {', '.join(sorted(links))}")
        return next(iter(links), "none")

    def __call__(self, encoded: Encoded) -> LossTerms:
        """Loss of a batch of windows."""
        parts = {"prediction": self.prediction(encoded)}
        total = parts["prediction"]
        for label, term in [("regularisation", self.regulariser), *((t.label, t) for t in self.auxiliary)]:
            if term.weight:
                parts[label] = term(encoded)
                total = total + term.weight * parts[label]
            else:
                parts[label] = torch.zeros_like(total)
        return LossTerms(total, parts)
