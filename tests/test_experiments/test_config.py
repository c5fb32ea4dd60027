"""Every choice composes and builds; plug-in parts become choices by themselves."""

import pytest

from experiments import config
from experiments.build import build_task
from lewm import registry
from lewm.types import ActionSpec, InputError

NEEDED = {
    "collect": ["out=x"],
    "train": ["data=x", "out=y"],
    "pretrain": ["data=x", "out=y"],
    "evaluate": ["run=x"],
    "diagnose": ["run=x"],
    "demo": [],
    "ablation": ["out=x"],
}


@pytest.mark.parametrize("verb", NEEDED)
def test_defaults_compose_without_a_missing_or_unread_value(verb):
    assert "???" not in str(config.compose(verb, NEEDED[verb]))


@pytest.mark.slow
def test_every_registered_part_builds_from_its_own_defaults():
    given = {
        "env": {"rows": 2},
        "encoder": {"image_size": 336, "length": 3, "shapes": {"pixels": (336, 336, 3)}},
        "predictor": {"latent_dim": 8, "block_dim": 10},
        "views": {"pictures": [], "image_size": 16, "views": 4, "action_shape": (1, 1)},
    }
    built = set()
    for kind in config.KINDS.values():
        for name in registry.names(kind):
            try:
                registry.build(kind, {"name": name, **registry.defaults(kind, name)}, **given.get(kind, {}))
            except InputError as error:  # two cannot, and say what they need
                asks = {"fusion": "an encoder for each column", "timm": "pip install timm"}
                assert asks[name] in str(error)
            built.add((kind, name))
    assert {kind for kind, _ in built} == set(config.KINDS.values())
    assert len(built) > 100


@pytest.mark.parametrize("size", ["small", "lewm"])
def test_a_size_composes_to_the_registered_one(size):
    from experiments.build import build_model
    from lewm.models import SIZES, WorldModel

    composed = config.compose("train", ["data=x", "out=y", f"model={size}"])["model"]
    spec = ActionSpec([-1.0], [1.0], [0.0], [1.0])
    mine, reference = build_model(composed, spec, 0), WorldModel(SIZES[size], spec)
    assert {n: p.shape for n, p in mine.named_parameters()} == {n: p.shape for n, p in reference.named_parameters()}


def test_group_settings_override_one_value():
    composed = config.compose("collect", ["out=x", "env.door=40", "policy=ou", "policy.scale=0.3"])
    assert composed["env"]["door"] == 40 and composed["policy"] == {"name": "ou", "correlation": 0.9, "scale": 0.3}
    assert build_task(composed["env"], 1).rows == 1


def test_types_are_checked_against_the_defaults():
    with pytest.raises(InputError, match=r"'env.door' must be a number, got 'left'"):
        config.compose("collect", ["out=x", "env.door=left"])
    with pytest.raises(InputError, match="'parts' must be like"):
        config.compose("benchmark_envs", ["out=x", "parts=frames"])


def test_a_verb_may_compose_another_inside_its_own_hydra_run(lewm, tmp_path, monkeypatch):
    """As the benchmarks do, which collect and train."""
    from experiments import collect

    seen = []
    monkeypatch.setattr(
        collect, "collect", lambda _: seen.append(config.compose("collect", ["out=other", "seed=3"])["out"])
    )
    assert lewm("collect", f"out={tmp_path}/data")[0] == 0
    assert seen == ["other"]
