"""Encoders: what is observed in, one feature vector per row out, whatever the batch; all that is learned learns."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lewm import registry
from lewm.models import ConvEncoder, ViTEncoder
from lewm.models.encoders import Fusion, TimmEncoder, VectorEncoder, encoder_of
from lewm.types import InputError

SHAPES = {"pixels": (32, 32, 3), "wrist": (16, 16, 3), "proprio": (5,)}
SMALL = {
    "conv": {"channels": (4, 8, 8), "features": 12},
    "keypoints": {"channels": (4, 8), "stem": 4, "points": 4},
    "vit": {"patch": 8, "dim": 12, "depth": 2, "heads": 2, "hidden": 32},
    "vector": {"features": 12, "hidden": 8},
    "fusion": {
        "parts": {
            "proprio": {"name": "vector", "features": 2, "hidden": 4},
            "pixels": {"name": "conv", "channels": (4,), "features": 6},
            "wrist": {"name": "conv", "channels": (4,), "stem": 16, "features": 4},
        }
    },
    "timm": {"model": "tiny"},
}


class Net(nn.Sequential):
    """Of timm's interface, as in 1.0.31, what `TimmEncoder` uses: the features come from behind a head's layers."""

    num_features, head_hidden_size = 3, 12

    def __init__(self, name):
        pool = nn.AdaptiveAvgPool2d(1)
        super().__init__(
            nn.Conv2d(3, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(), pool, nn.Flatten(), nn.Linear(3, 12)
        )
        self.pretrained_cfg = {"input_size": (3, 24, 24), "fixed_input_size": name == "fixed"}


@pytest.fixture(autouse=True)
def timm(monkeypatch):
    """A stand-in: the package needs torchvision, whose published wheels do not go with every torch."""
    module = ModuleType("timm")
    module.list_models = lambda: ["tiny", "fixed"]
    module.is_model = lambda name: name in module.list_models()

    def create_model(name, pretrained, num_classes):
        assert num_classes == 0
        net = Net(name)
        if pretrained:
            nn.init.constant_(net[0].weight, 0.5)
        return net

    module.create_model = create_model
    monkeypatch.setitem(sys.modules, "timm", module)


def small(name, **options):
    torch.manual_seed(0)
    column = "proprio" if name == "vector" else "pixels"
    spec = {"name": name, **SMALL[name], **options}
    return encoder_of(column, SHAPES[column], spec, shapes=SHAPES)


def rows(name, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    seen = {c: torch.randn(count, 3, *s[:2], generator=generator) for c, s in SHAPES.items() if len(s) == 3}
    seen["proprio"] = torch.randn(count, 5, generator=generator)
    return seen if name == "fusion" else seen["proprio" if name == "vector" else "pixels"]


def part(seen, chosen):
    return {name: x[chosen] for name, x in seen.items()} if isinstance(seen, dict) else seen[chosen]


every = pytest.mark.parametrize("name", registry.names("encoder"))


@every
def test_one_feature_vector_per_row_that_depends_on_this_row_alone(name):
    encoder, seen = small(name).eval(), rows(name, 5)
    out = encoder(seen)
    assert out.shape == (5, 12)
    assert out.dtype == torch.float32
    assert encoder.features == 12
    assert len(out.unique(dim=0)) == 5
    for k in range(5):
        torch.testing.assert_close(out[k], encoder(part(seen, slice(k, k + 1)))[0])


@every
def test_gradient_reaches_every_parameter(name):
    encoder = small(name).train()
    encoder(rows(name, 4)).square().sum().backward()
    silent = [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not silent


@every
def test_same_seed_same_weights(name):
    first, again = small(name).state_dict(), small(name).state_dict()
    assert first.keys() == again.keys()
    assert all(torch.equal(first[key], again[key]) for key in first)


@pytest.mark.parametrize("name", ["conv", "keypoints", "vit"])
def test_position_of_a_spot_matters(name):
    encoder = small(name)
    images = torch.zeros(2, 3, 32, 32)
    images[0, :, 4:8, 4:8] = images[1, :, 20:24, 20:24] = 5.0  # the same place in two patches
    first, second = encoder(images)
    assert (first - second).abs().max() > 1e-3


def test_keypoints_are_where_a_map_is_high():
    encoder = small("keypoints", temperature=0.5)
    encoder.net = nn.Flatten(2)  # what would be images are the maps, of 8 x 8 cells
    maps = torch.zeros(1, 4, 8, 8)
    maps[0, 1, 2, 7] = 100.0  # one cell has it all
    maps[0, 2, 0, 0] = maps[0, 2, 0, 2] = 50.0  # two share it: the place between them
    maps[0, 3, :, 1:] = -100.0  # a column does
    places, strength = encoder(maps)[0].split((8, 4))
    edge = torch.tensor([[0.0, 0.0], [2 * 2 / 7 - 1, 1.0], [-1.0, 2 * 1 / 7 - 1], [0.0, -1.0]])
    torch.testing.assert_close(places.view(4, 2), edge)
    torch.testing.assert_close(strength, torch.tensor([0.0, 100.0, 50.0, 0.0]))


@pytest.mark.parametrize(("name", "unit"), [("conv", 16), ("keypoints", 6), ("vit", 14)])
def test_image_size_must_be_divisible(name, unit):
    with pytest.raises(InputError, match=f"{unit}, got 65"):
        registry.build("encoder", {"name": name}, image_size=65)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("conv", {"blocks": -1}),
        ("conv", {"channels": (4, 0)}),
        ("keypoints", {"points": 0}),
        ("keypoints", {"temperature": 0.0}),
        ("vit", {"registers": -1}),
        ("vit", {"heads": 5}),
        ("vector", {"depth": -1}),
        ("vector", {"features": 0}),
        ("fusion", {"parts": None}),
        ("fusion", {"parts": {}}),
        ("fusion", {"parts": ["pixels"]}),
    ],
)
def test_sizes_that_make_no_encoder_are_refused(name, options):
    with pytest.raises(InputError, match=f"encoder '{name}' needs"):
        small(name, **options)


@pytest.mark.parametrize(
    ("column", "name", "held"),
    [("pixels", "vector", "images"), ("proprio", "conv", "vectors"), ("proprio", "fusion", "vectors")],
)
def test_an_encoder_of_something_else_is_refused(column, name, held):
    with pytest.raises(InputError, match=f"'{name}' does not take {held}, which column '{column}' holds"):
        small("fusion", parts={column: name})


def test_cameras_must_be_square():
    with pytest.raises(InputError, match=r"'wide' holds images of shape \(16, 32, 3\)"):
        Fusion({"wide": (16, 32, 3)}, parts={"wide": "conv"})


def test_a_column_that_is_not_there_is_refused():
    with pytest.raises(
        InputError, match=r"parts for the columns \['force'\]; there are \['pixels', 'proprio', 'wr"
    ):
        small("fusion", parts={"pixels": "conv", "force": "vector"})


class TestConv:
    def test_without_blocks_it_is_the_net_it_was(self):
        """Six layers and a linear one, under the names that checkpoints know."""
        assert [key for key in ConvEncoder(64).state_dict() if key.endswith("weight")] == [
            f"net.{k}.weight" for k in (0, 1, 3, 4, 6, 7, 10)
        ]

    def test_a_residual_block_adds_to_what_it_is_given(self):
        """With the second convolution at zero it is the identity, so that the net is the one without blocks."""
        plain, residual = small("conv"), small("conv", blocks=2)
        kept = [m for m in residual.net if isinstance(m, nn.Conv2d | nn.GroupNorm | nn.Linear)]
        for mine, theirs in zip(kept, [m for m in plain.net if list(m.parameters())], strict=True):
            mine.load_state_dict(theirs.state_dict())
        blocks = [m for m in residual.net if isinstance(m, nn.Sequential)]
        assert len(blocks) == 6
        images = rows("conv", 2)
        assert not torch.allclose(residual(images), plain(images))
        for block in blocks:
            nn.init.zeros_(block[-1].weight)
            nn.init.zeros_(block[-1].bias)
        torch.testing.assert_close(residual(images), plain(images))


class TestViT:
    def test_no_order_but_its_positions(self):
        """Without position embeddings, exchanging two patches changes nothing: attention is over a set."""
        encoder = small("vit", registers=2).double()
        nn.init.zeros_(encoder.position)
        images = torch.randn(1, 3, 32, 32, dtype=torch.float64)
        swapped = images.clone()
        swapped[..., :8, :8], swapped[..., 16:24, 8:16] = images[..., 16:24, 8:16], images[..., :8, :8]
        torch.testing.assert_close(encoder(images), encoder(swapped), rtol=1e-10, atol=1e-10)

    def test_parameter_counts_of_the_released_one(self):
        """ViT-tiny/14 at 224: patches, CLS, 257 positions, 12 blocks, final norm."""
        dim, hidden = 192, 768
        block = 4 * (dim * dim + dim) + 2 * dim * hidden + hidden + dim + 4 * dim
        expected = (3 * 14 * 14 + 1) * dim + dim + 257 * dim + 12 * block + 2 * dim
        with torch.device("meta"):
            assert sum(p.numel() for p in ViTEncoder(224).parameters()) == expected

    def test_registers_are_further_tokens_that_learn(self):
        plain, more = small("vit"), small("vit", registers=3)
        assert set(more.state_dict()) - set(plain.state_dict()) == {"registers"}
        assert set(plain.state_dict()) <= set(more.state_dict())
        seen = []
        more.blocks.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        before = more(rows("vit", 2))
        assert seen[0].shape == (2, 1 + 16 + 3, 12)
        assert torch.equal(seen[0][1, 17:], more.registers[0])
        nn.init.constant_(more.registers, 1.0)
        assert (more(rows("vit", 2)) - before).abs().max() > 1e-4
        more(rows("vit", 2)).sum().backward()
        assert (more.registers.grad.abs().sum(-1) > 0).all()


class TestVector:
    def test_depth_zero_is_a_linear_map(self):
        encoder, x = VectorEncoder(5, features=3, depth=0), torch.randn(4, 5)
        torch.testing.assert_close(encoder(x), x @ encoder.net[0].weight.T + encoder.net[0].bias)

    def test_it_is_no_linear_map_otherwise(self):
        encoder, x = small("vector"), rows("vector", 2)
        middle = encoder(x.mean(0, keepdim=True))[0]
        assert (middle - encoder(x).mean(0)).abs().max() > 1e-3


class TestFusion:
    def test_features_of_the_parts_side_by_side_in_their_order(self):
        encoder, seen = small("fusion"), rows("fusion", 3)
        out = encoder(dict(reversed(seen.items())))
        assert encoder.columns == ("proprio", "pixels", "wrist")
        by_hand = [part(seen[column]) for part, column in zip(encoder.parts, encoder.columns, strict=True)]
        assert torch.equal(out, torch.cat(by_hand, dim=-1))

    def test_bare_names_and_one_part_will_do(self):
        encoder = Fusion(
            {"observation.state": (2, 3), "pixels": (64, 64, 3)}, parts={"observation.state": "vector"}
        )
        assert encoder.columns == ("observation.state",)
        assert encoder({"observation.state": torch.randn(4, 6)}).shape == (4, 64)

    def test_a_misspelt_setting_of_a_part_is_refused(self):
        with pytest.raises(InputError, match=r"'vector' has no setting 'widht'"):
            small("fusion", parts={"proprio": {"name": "vector", "widht": 3}})


class TestTimm:
    def test_images_are_scaled_where_the_backbone_or_the_user_asks(self):
        images = rows("timm", 2)
        for options, side in [({}, 32), ({"model": "fixed"}, 24), ({"resize": 40}, 40)]:
            encoder = small("timm", **options).eval()
            scaled = F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
            torch.testing.assert_close(encoder(images), encoder.net(scaled))

    def test_published_weights_come_when_they_are_fetched_and_not_before(self):
        """A checkpoint builds the encoder, too, and brings its own."""
        encoder, scratch = small("timm", pretrained=True), small("timm")
        assert torch.equal(encoder.net[0].weight, scratch.net[0].weight)
        for each in (encoder, scratch):
            each.download()
        assert (encoder.net[0].weight == 0.5).all()
        assert not (scratch.net[0].weight == 0.5).any()

    def test_an_unknown_model_is_refused(self):
        with pytest.raises(InputError, match="timm has no model 'tinny': did you mean 'tiny'"):
            TimmEncoder(32, model="tinny")

    def test_a_missing_package_names_the_extra(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "timm", None)
        with pytest.raises(InputError, match="this needs the package timm: pip install"):
            TimmEncoder(32)
