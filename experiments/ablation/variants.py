"""What is compared: tasks that are not at their ceiling, and variants as overrides of `lewm train`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """A benchmark task.

    Attributes:
        title: in the page.
        collect, train, evaluate: overrides of the three verbs; a variant's own come after, and one that chooses a
            predictor does without the task's settings of the default one.
    """

    title: str
    collect: tuple[str, ...]
    train: tuple[str, ...]
    evaluate: tuple[str, ...]


TASKS = {
    "two_room": Task(
        "Two-Room, random-walk data, 300 steps, detour pairs",
        ("env=two_room", "policy=ou", "episodes=2000"),
        ("trainer.steps=300",),
        ("pairs=100", "detours=1.0"),
    ),
    "reacher": Task(
        "Reacher, standard data, 1,000 steps, free pairs",
        ("env=reacher", "preset=standard"),
        ("trainer.steps=1000", "model.predictor.history=2"),
        ("pairs=100",),
    ),
}

SMALL = ("depth=2", "heads=4", "head_dim=32", "hidden=512", "action_hidden=192")
SMALL_PREFIX = (
    "prefixes=3",
    *("depth=2", "value_dim=128", "hidden=512", "action_hidden=192"),
    *("encoder_depth=1", "encoder_heads=4", "encoder_head_dim=32"),
)


def _predictor(name: str, *settings: str) -> tuple[str, ...]:
    return (f"model/predictor={name}", *(f"model.predictor.{setting}" for setting in settings))


REGULARISERS = {
    **{f"weight {w}": (f"objective.regulariser.weight={w}",) for w in (0.1, 0.4, 1.6, 25.6)},
    "1024 directions": ("objective.regulariser.directions.count=1024",),
    "orthogonal directions": ("objective/regulariser/directions=orthogonal",),
    "pooled over time": ("objective.regulariser.axis=pooled",),
    "dimension 32": ("model.latent_dim=32",),
    **{
        name: (f"objective/regulariser={name}",)
        for name in (
            "exact_sigreg",
            "sub_jepa",
            "tc_sigreg",
            "visreg",
            "rdmreg",
            "vicreg",
            "weak_sigreg",
            "spectral_floor",
            "ksd",
            "sphere_mmd",
            "sphere_ksd",
            "sphere_kl",
            "susreg",
            "dysib",
            "none",
        )
    },
}
PREDICTIONS = {
    "open_loop": ("objective=open_loop",),
    "open_loop, growth 1": ("objective=open_loop", "objective.prediction.growth=1.0"),
    "prefixes": ("objective/prediction=prefixes",),
}
AUXILIARIES = {
    name: (f"objective={name}",)
    for name in (
        "smwm",
        "delta_jepa",
        "ac_mtm",
        "straightened",
        "rc_aux",
        "trm",
        "peira",
        "within_episode",
        "pldm",
    )
} | {
    f"sigreg + {name}": (f"objective.auxiliary=[{name}]",)
    for name in ("inverse_dynamics", "latent_difference", "action_nce", "peira", "within_episode")
}
PREDICTORS = {
    "residual_mlp, width 512, depth 2": _predictor("residual_mlp", "width=512", "depth=2"),
    "residual_mlp, history 2": _predictor("residual_mlp", "history=2"),
    "adaln_transformer": _predictor("adaln_transformer", *SMALL),
    "adaln_transformer, history 1": (*_predictor("adaln_transformer", "history=1", *SMALL), "trainer.frames=2"),
    "adaln_transformer, rate 5e-4": (*_predictor("adaln_transformer", *SMALL), "trainer.learning_rate=0.0005"),
    "adaln_transformer, residual": _predictor("adaln_transformer", "residual=true", *SMALL),
    "adaln_transformer, no dropout": _predictor("adaln_transformer", "dropout=0.0", *SMALL),
    "adaln_transformer, open_loop": (*_predictor("adaln_transformer", *SMALL), "objective=open_loop"),
    "gru": _predictor("gru"),
    "affine": _predictor("affine"),
    "affine, open_loop (SALT)": (*_predictor("affine"), "objective=salt"),
    "prefix, prefixes (Fast-LeWM)": (*_predictor("prefix", *SMALL_PREFIX), "objective=fast_lewm"),
}
JOINED = {
    f"{regulariser}, {name}": (*REGULARISERS[regulariser], *parts[name])
    for regulariser, parts, name in (
        ("weight 0.4", PREDICTIONS, "open_loop"),
        ("spectral_floor", PREDICTIONS, "prefixes"),
    )
}
VARIANTS: dict[str, tuple[str, ...]] = (
    {"default": ()} | PREDICTIONS | REGULARISERS | AUXILIARIES | PREDICTORS | JOINED
)
