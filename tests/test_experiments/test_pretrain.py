"""Pretraining from the command's side: on a folder and on a data set, resumed, and taken up by a world model."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import lewm
from experiments import config as configuration
from experiments import pretrain as module
from experiments.build import build_model
from experiments.pretrain import accuracy, pretrain, probe, worst_r2
from lewm import checkpoint
from lewm.data import EpisodeReader
from lewm.models import WorldModel
from lewm.training.start import start_from
from lewm.types import ActionSpec, InputError

KINDS = ("disc", "triangle", "cross")


def draw_shape(kind, rng, side=32):
    """A shape of random size, place and tones."""
    back, fore = rng.choice(8, 2, replace=False) * 36
    image = Image.new("L", (side, side), int(back))
    r = rng.uniform(0.22, 0.4) * side
    x, y = rng.uniform(r, side - r, 2)
    draw = ImageDraw.Draw(image)
    if kind == "disc":
        draw.ellipse([x - r, y - r, x + r, y + r], fill=int(fore))
    elif kind == "triangle":
        draw.polygon([(x, y - r), (x + r, y + r), (x - r, y + r)], fill=int(fore))
    else:
        for wide, high in ((r, r / 3), (r / 3, r)):
            draw.rectangle([x - wide, y - high, x + wide, y + high], fill=int(fore))
    return image


def write_shapes(folder, count):
    rng = np.random.default_rng(0)
    for kind in KINDS:
        (folder / kind).mkdir(parents=True)
        for number in range(count):
            draw_shape(kind, rng).save(folder / kind / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """3 x 20 pictures of 32 x 32."""
    return write_shapes(tmp_path_factory.mktemp("shapes") / "pictures", 20)


@pytest.fixture
def settings(tiny):
    """(*overrides) -> configuration of a tiny run."""

    def make(*overrides):
        kept = [o for o in tiny["train"] if not o.startswith("planner.")]
        return configuration.compose("pretrain", [*kept, *overrides])

    return make


def test_a_folder_is_pretrained_probed_and_saved(settings, shapes, tmp_path, capsys):
    config = settings(f"data={shapes}", f"out={tmp_path}/run", "model.image_size=32", "validation=0.3")
    pretrain(config)
    model, facts = lewm.load(tmp_path / "run"), checkpoint.provenance(tmp_path / "run")
    score, before = facts["probe"]["score"], facts["probe"]["untrained"]
    assert f"held-out class accuracy {score:.4f}, untrained {before:.4f}" in capsys.readouterr().out
    assert facts["trained"] == ["encoder", "projector"] and facts["steps"] == 6
    fresh = build_model(vars(model.config), model.action_spec, config["seed"])
    assert probe(fresh.eval(), module._open(config)) == before
    assert probe(model, module._open(config)) == score
    for part in ("encoder", "projector", "predictor"):
        pairs = zip(getattr(model, part).parameters(), getattr(fresh, part).parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs) == (part == "predictor")
    pretrain(config)
    assert "already done" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"views\.flip is 0\.5, now 0\.0"):
        pretrain(config | {"views": config["views"] | {"flip": 0.0}})


def test_a_data_set_is_pretrained_and_an_interrupted_run_ends_with_the_same_weights(
    settings, tiny_run, tmp_path, monkeypatch
):
    class Cut(Exception):
        pass

    class Bar(SimpleNamespace):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, count):
            self.n += count
            if self.n == self.last:
                raise Cut

    monkeypatch.setattr(module, "PROBE_PICTURES", 50)
    config, real = settings(f"data={tiny_run}/data", "out=unused", "views=gentle"), module.progress

    def run(name, last):
        with monkeypatch.context() as patch:
            bar = Bar(n=0, last=last, set_postfix_str=lambda text: None)
            patch.setattr(module, "progress", lambda *a: bar if a[1] == "pretrain" else real(*a))
            pretrain(config | {"out": f"{tmp_path}/{name}"})

    run("whole", None)
    with pytest.raises(Cut):
        run("cut", 3)
    assert not (tmp_path / "cut/checkpoint").exists()
    run("cut", None)
    whole, cut = (lewm.load(tmp_path / name).state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    facts = checkpoint.provenance(tmp_path / "whole")
    assert facts["probe"]["measure"] == "state R2 (worst axis)" and facts["probe"]["score"] <= 1
    assert facts["data"]["fingerprint"] == EpisodeReader(tiny_run / "data").fingerprint


def test_a_world_model_starts_from_an_encoder_that_never_saw_an_action(settings, shapes, tmp_path):
    pretrain(settings(f"data={shapes}", f"out={tmp_path}/run", "model.image_size=32", "trainer.log_every=6"))
    source = lewm.load(tmp_path / "run")
    spec = ActionSpec((-1, -1, -1), (1, 1, 1), (0, 0, 0), (1, 1, 1))
    model = WorldModel(source.config, spec)
    start_from(model, source, ["encoder", "projector"])
    image = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.eval().encode(image), source.encode(image))


def test_scores_by_hand():
    true = torch.tensor([[0.0, 1.0, 5.0], [1.0, 3.0, 5.0], [2.0, 2.0, 5.0]])
    guess = true + torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert worst_r2(guess, true) == pytest.approx(1 - 1 / 2)  # the third axis is constant
    assert worst_r2(true[:, 2:], true[:, 2:]) is None
    assert accuracy(torch.tensor([[2.0, 1.0], [0.1, 0.2], [3.0, 4.0]]), torch.eye(2)[[0, 1, 0]]) == pytest.approx(
        2 / 3
    )


def test_what_cannot_be_probed_is_not(settings, shapes, tmp_path):
    """Nothing held out; no classes."""
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in shapes.glob("disc/*.png"):
        os.link(path, flat / path.name)
    config = settings(f"data={shapes}", "out=unused", "model.image_size=32", "validation=0.0")
    for given in (config, config | {"data": flat, "validation": 0.3}):
        assert probe(torch.nn.Identity(), module._open(given)) is None


def test_a_set_of_another_image_size_is_refused(settings, tiny_run, tmp_path):
    with pytest.raises(InputError, match=r"choose model\.image_size=64"):
        pretrain(settings(f"data={tiny_run}/data", f"out={tmp_path}/run", "model.image_size=32"))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_encoder_learns_shapes_that_an_untrained_one_does_not_tell_apart(tmp_path):
    """Three classes, chance is 1/3."""
    small = ["model.image_size=32", "model.latent_dim=32", "model.projector_hidden=64", "model.encoder.features=64"]
    sizes = ["model.encoder.channels=[16,32]", "trainer.steps=300", "validation=0.3", "threads=1", "cache=ram"]
    crops = ["views.global_scale=[0.4,1.0]", "views.local_scale=[0.4,1.0]", "views.brightness=0.8"]
    data = write_shapes(tmp_path / "pictures", 200)
    pretrain(configuration.compose("pretrain", [f"data={data}", f"out={tmp_path}/run", *small, *sizes, *crops]))
    found = checkpoint.provenance(tmp_path / "run")["probe"]
    assert found["score"] > found["untrained"] + 0.15
