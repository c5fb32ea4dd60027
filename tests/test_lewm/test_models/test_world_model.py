"""The world model: sizes, encoding row by row, units of actions, contexts, imagination."""

import pytest
import torch

from lewm import checkpoint
from lewm.models import SIZES, WorldModel, WorldModelConfig
from lewm.models.observations import Sensor
from lewm.models.predictors import Observed
from lewm.types import ActionSpec, InputError

SPEC = ActionSpec([-1, -2], [1, 2], [0.25, -0.5], [0.5, 2.0])
VIT = {"name": "vit", "patch": 8, "dim": 32, "depth": 2, "heads": 2, "hidden": 64}
ADALN = {
    "name": "adaln_transformer",
    **{"history": 3, "depth": 1, "heads": 2, "head_dim": 8, "hidden": 16, "action_hidden": 16},
}


def tiny(encoder=None, predictor=None, **options):
    torch.manual_seed(0)
    config = WorldModelConfig(
        encoder=encoder or {"name": "conv", "channels": (4, 8), "features": 16},
        predictor=predictor or {"name": "residual_mlp", "width": 16},
        image_size=16,
        latent_dim=8,
        projector_hidden=16,
        action_block=2,
        **options,
    )
    return WorldModel(config, SPEC).eval()


def images(*shape, size=16):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (*shape, size, size, 3), dtype=torch.uint8, generator=generator)


def test_lewm_size_has_the_published_parameters_and_shapes():
    model = WorldModel(SIZES["lewm"], SPEC).eval()
    assert sum(p.numel() for p in model.parameters()) == 18_034_478
    assert (model.history, model.action_block, model.image_shape) == (3, 5, (224, 224, 3))
    with torch.no_grad():
        context = model.context(images(1, 3, size=224), torch.randn(1, 10, 2))
        assert context.z_BTD.shape == (1, 3, 192)
        assert context.past_BTE.shape == (1, 2, 10)
        assert model.predict(context.z_BTD, torch.randn(1, 3, 5, 2)).shape == (1, 3, 192)
        assert model.rollout(context, torch.randn(1, 2, 10, 2)).shape == (1, 2, 2, 192)


def test_small_size_shapes():
    model = WorldModel(SIZES["small"], SPEC).eval()
    assert (model.history, model.action_block, model.image_shape) == (1, 5, (64, 64, 3))
    with torch.no_grad():
        assert model.encode(images(2, 4, size=64)).shape == (2, 4, 192)
        assert model.encode(images(size=64)).shape == (192,)
        context = model.context(images(2, 1, size=64), torch.zeros(2, 0, 2))
        assert model.predict(torch.randn(2, 3, 192), torch.randn(2, 3, 5, 2)).shape == (2, 3, 192)
        assert model.rollout(context, torch.randn(2, 7, 40, 2)).shape == (2, 7, 8, 192)


MODELS = {"tiny": tiny, "vit": lambda: tiny(VIT), "small": lambda: WorldModel(SIZES["small"], SPEC).eval()}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_latent_of_an_image_is_the_same_bits_in_any_batch(make):
    model = make()
    pictures = images(20, size=model.image_shape[0])
    with torch.no_grad():
        alone = torch.stack([model.encode(picture) for picture in pictures])
        for count in range(1, 21):
            assert torch.equal(model.encode(pictures[:count]), alone[:count]), count
        assert torch.equal(model.encode(pictures.flip(0)), alone.flip(0))
        assert torch.equal(model.encode(pictures.unflatten(0, (4, 5))), alone.unflatten(0, (4, 5)))
    assert len(alone.unique(dim=0)) == 20


def test_pixels_are_scaled_and_standardised():
    model = tiny(pixel_mean=(0.1, 0.2, 0.3), pixel_std=(0.5, 0.6, 0.7))
    seen = []
    model.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    picture = images()
    model.encode(picture)
    for channel, (mean, std) in enumerate([(0.1, 0.5), (0.2, 0.6), (0.3, 0.7)]):
        expected = (picture[:, :, channel] / 255 - mean) / std
        torch.testing.assert_close(seen[0][0, channel], expected)


def test_training_encodes_the_batch_as_one():
    """Batch statistics in training: the latents of equal batches agree, those of other company differ."""
    model = tiny().train()
    pictures = images(6)
    first, again = model.encode(pictures), model.encode(pictures)
    torch.testing.assert_close(first, again)
    assert (model.encode(pictures[:3]) - first[:3]).abs().max() > 1e-3


@pytest.mark.parametrize(
    "wrong",
    [images(2).float(), images(2, size=8), images(2).permute(0, 3, 1, 2), images(2)[..., :1], images()[0]],
    ids=["float", "other size", "channels first", "grey", "row of pixels"],
)
def test_other_images_are_refused(wrong):
    with pytest.raises(InputError, match=r"uint8 images of shape \(\.\.\., 16, 16, 3\)"):
        tiny().encode(wrong)


def z_scored(actions):
    """By hand: minus the mean, over the standard deviation, folded into blocks of two."""
    scaled = (actions - torch.tensor([0.25, -0.5])) / torch.tensor([0.5, 2.0])
    return scaled.reshape(*actions.shape[:-2], actions.shape[-2] // 2, 4)


@pytest.mark.parametrize("predictor", [None, ADALN], ids=["residual_mlp", "adaln_transformer"])
def test_raw_actions_reach_the_predictor_z_scored(predictor):
    model = tiny(predictor=predictor)
    frames = images(3, model.history)
    past, future = torch.randn(3, (model.history - 1) * 2, 2), torch.randn(3, 4, 6, 2)
    with torch.no_grad():
        context = model.context(frames, past)
        assert torch.equal(context.z_BTD, model.encode(frames))
        assert torch.equal(model.start(context), model.encode(frames[:, -1]))
        torch.testing.assert_close(context.past_BTE, z_scored(past))
        by_hand = model.predictor.plain_rollout(Observed(model.encode(frames), z_scored(past)), z_scored(future))
        torch.testing.assert_close(model.rollout(context, future), by_hand)
        raw = torch.randn(3, model.history, 2, 2)
        z = torch.randn(3, model.history, 8)
        torch.testing.assert_close(model.predict(z, raw), model.predictor(z, z_scored(raw.flatten(1, 2))))


def test_context_may_hold_fewer_frames_than_the_window():
    model = tiny(predictor=ADALN)
    frames, past, future = images(2, 2), torch.randn(2, 2, 2), torch.randn(2, 3, 8, 2)
    with torch.no_grad():
        context = model.context(frames, past)
        assert context.z_BTD.shape == (2, 2, 8)
        plain = model.predictor.plain_rollout(context, z_scored(future))
        torch.testing.assert_close(model.rollout(context, future), plain)


def test_context_of_some_rows_is_the_context_of_these_rows():
    model = tiny(predictor=ADALN)
    frames, past, future = images(5, 3), torch.randn(5, 4, 2), torch.randn(5, 2, 4, 2)
    with torch.no_grad():
        whole = model.context(frames, past)
        part = whole[1:3]
        alone = model.context(frames[1:3], past[1:3])
        assert isinstance(part, Observed)
        assert torch.equal(part.z_BTD, alone.z_BTD)
        assert torch.equal(part.past_BTE, alone.past_BTE)
        torch.testing.assert_close(model.rollout(part, future[1:3]), model.rollout(whole, future)[1:3])


@pytest.mark.parametrize(
    ("frames", "actions"),
    [
        ((2, 2, 16, 16, 3), (2, 4, 2)),
        ((2, 4, 16, 16, 3), (2, 6, 2)),
        ((2, 0, 16, 16, 3), (2, 0, 2)),
        ((2, 16, 16, 3), (2, 4, 2)),
        ((2, 3, 16, 16, 3), (2, 3, 2)),
        ((2, 3, 16, 16, 3), (2, 2, 2, 2)),
        ((2, 3, 16, 16, 3), (2, 4, 3)),
        ((2, 3, 16, 16, 3), (1, 4, 2)),
    ],
)
def test_context_of_another_shape_is_an_error(frames, actions):
    with pytest.raises(InputError, match=r"1 to 3 frames per row and \(frames - 1\) \* 2 actions of dimension 2"):
        tiny(predictor=ADALN).context(torch.zeros(frames, dtype=torch.uint8), torch.zeros(actions))


@pytest.mark.parametrize("shape", [(1, 3, 5, 2), (1, 3, 4, 3), (3, 4, 2)])
def test_rollout_of_another_shape_is_an_error(shape):
    model = tiny()
    context = model.context(images(1, 1), torch.zeros(1, 0, 2))
    with pytest.raises(InputError, match=r"multiple of action_block 2 and actions of dimension 2"):
        model.rollout(context, torch.zeros(shape))


SENSORS = {
    "wrist": {"shape": [8, 8, 3], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]},
    "observation.force": {"shape": [2, 2], "mean": [1, 2, 3, 4], "std": [0.5, 1, 2, 4]},
    "unused": {"shape": [7], "mean": [0] * 7, "std": [1] * 7},
}
PARTS = {
    "observation.force": {"name": "vector", "features": 4, "hidden": 8},
    "pixels": {"name": "conv", "channels": (4, 8), "features": 8},
    "wrist": {"name": "conv", "channels": (4,), "features": 4},
}


def fused(parts=PARTS, **options):
    return tiny({"name": "fusion", "parts": parts}, sensors=SENSORS, **options)


def seen(*shape):
    generator = torch.Generator().manual_seed(1)
    force = torch.randn(*shape, 2, 2, generator=generator, dtype=torch.float64) * 3
    return {"wrist": images(*shape, size=8), "pixels": images(*shape), "observation.force": force}


def test_the_state_of_a_model_of_pixels_has_the_names_checkpoints_know():
    layers = [f"encoder.net.{k}.{kind}" for k in (0, 1, 3, 4, 6, 7, 10) for kind in ("weight", "bias")]
    rest = {key for key in WorldModel(SIZES["small"], SPEC).state_dict() if not key.startswith(("pred", "proj"))}
    assert rest == {*layers, "pixel_mean", "pixel_std", "action_mean", "action_std"}


def test_pixels_by_name_or_alone_and_whatever_else_is_seen():
    model = tiny()
    assert model.columns == ("pixels",)
    assert torch.equal(model.encode(seen(3)), model.encode(images(3)))


def test_each_column_is_standardised_and_encoded_by_its_part():
    model, rows = fused(), seen(3)
    assert model.columns == ("observation.force", "pixels", "wrist")
    force = (rows["observation.force"].flatten(1) - torch.tensor([1, 2, 3, 4])) / torch.tensor([0.5, 1, 2, 4])
    wrist = (rows["wrist"] / 255 - torch.tensor([0.1, 0.2, 0.3])) / torch.tensor([0.4, 0.5, 0.6])
    pixels = (rows["pixels"] / 255 - 0.5) / 0.25
    given = [force.float(), pixels.permute(0, 3, 1, 2), wrist.permute(0, 3, 1, 2)]
    features = [part(x) for part, x in zip(model.encoder.parts, given, strict=True)]
    torch.testing.assert_close(model.encode(rows), model.projector(torch.cat(features, dim=-1)))


def test_latent_of_an_observation_is_the_same_bits_in_any_batch():
    model, rows = fused(), seen(10)
    with torch.no_grad():
        whole = model.encode(rows)
        for count in range(1, 11):
            some = {name: x[:count] for name, x in rows.items()}
            assert torch.equal(model.encode(some), whole[:count]), count
        folded = {name: x.unflatten(0, (5, 2)) for name, x in rows.items()}
        assert torch.equal(model.encode(folded), whole.unflatten(0, (5, 2)))
        assert torch.equal(model.encode({name: x[3] for name, x in rows.items()}), whole[3])
    assert len(whole.unique(dim=0)) == 10


def test_every_column_matters_and_is_trained():
    model = fused().train()
    rows = seen(6)
    model.encode(rows).square().sum().backward()
    assert all(p.grad is not None for p in model.encoder.parameters())
    model.eval()
    before = model.encode(rows)
    for name in model.columns:
        assert (model.encode(rows | {name: rows[name].flip(0)}) - before).abs().max() > 1e-3, name


def test_context_and_imagination_of_several_columns():
    model, rows = fused(predictor=ADALN), seen(2, 3)
    with torch.no_grad():
        context = model.context(rows, torch.randn(2, 4, 2))
        assert torch.equal(context.z_BTD, model.encode(rows))
        assert model.rollout(context, torch.randn(2, 5, 4, 2)).shape == (2, 5, 2, 8)
    with pytest.raises(InputError, match="1 to 3 frames per row"):
        model.context(seen(2), torch.randn(2, 4, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wrist": None}, r"observes \['observation.force', 'pixels', 'wrist'\], got .*: \['wrist'\] missing"),
        ({"wrist": images(3, size=16)}, r"uint8 images of shape \(\.\.\., 8, 8, 3\) as wrist"),
        ({"observation.force": torch.zeros(3, 4)}, r"real vectors of shape \(\.\.\., 2, 2\) as observation.force"),
        ({"observation.force": torch.zeros(3, 2, 2, dtype=torch.cfloat)}, "real vectors"),
        ({"observation.force": torch.zeros(2, 2, 2)}, "the same leading axes"),
    ],
    ids=["missing", "size", "shape", "complex", "rows"],
)
def test_other_observations_are_refused(change, message):
    rows = {name: x for name, x in (seen(3) | change).items() if x is not None}
    with pytest.raises(InputError, match=message):
        fused().encode(rows)


def test_a_model_of_vectors_alone_needs_no_pixels():
    model = fused({"observation.force": "vector"})
    assert model.encode({"observation.force": torch.zeros(4, 2, 2)}).shape == (4, 8)


def test_checkpoint_of_several_columns_gives_the_same_latents(tmp_path):
    model = fused()
    checkpoint.save(model, tmp_path / "checkpoint")
    loaded = checkpoint.load(tmp_path / "checkpoint")
    assert loaded.config.sensors == model.config.sensors
    assert isinstance(loaded.config.sensors["wrist"], Sensor)
    assert torch.equal(loaded.encode(seen(3)), model.encode(seen(3)))


@pytest.mark.parametrize("wrong", [{"mean": [0] * 6}, {"std": [0.0] * 7}, {"shape": [0], "mean": [], "std": []}])
def test_statistics_must_fit_the_shape(wrong):
    with pytest.raises(InputError, match=r"a sensor of shape \(\d,\) needs \d means"):
        Sensor(**SENSORS["unused"] | wrong)


def test_heads_are_part_of_the_model_and_of_its_checkpoint(tmp_path):
    model = tiny(heads={"inverse": {"name": "inverse"}})
    assert any(key.startswith("heads.inverse.") for key in model.state_dict())
    checkpoint.save(model, tmp_path / "checkpoint")
    loaded = checkpoint.load(tmp_path / "checkpoint").state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in model.state_dict().items())
