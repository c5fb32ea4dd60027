"""Views of pictures whose colours say where they were taken from."""

import pickle

import numpy as np
import pytest

from lewm import registry
from lewm.data.views import LUMA, _turn, standard_view
from lewm.types import InputError

SIDE, SIZE = 200, 16
PLAIN = {"jitter": 0.0, "grey": 0.0, "blur": 0.0}
WHOLE = {"global_scale": [1.0, 1.0], "local_scale": [1.0, 1.0], "aspect": 1.0, "flip": 0.0}


class Ramps:
    """Picture n: red grows with x, green with y, blue is n."""

    def __init__(self, count=10, width=SIDE):
        self.count, self.width = count, width

    def __len__(self):
        return self.count

    def read(self, numbers):
        y, x = np.mgrid[:SIDE, : self.width].astype(np.uint8)
        return [np.stack([x, y, np.full_like(x, n)], -1) for n in numbers]


def make(name="crops", pictures=None, views=4, **settings):
    facts = {"image_size": SIZE, "views": views, "action_shape": (5, 2), "pictures": pictures or Ramps()}
    return registry.build("views", {"name": name, **settings}, **facts)


def test_a_batch_of_views_is_a_batch_of_windows_with_zero_actions():
    batch = make().draw(0, 6, seed=1)
    assert batch.pixels.shape == (6, 4, SIZE, SIZE, 3) and batch.pixels.dtype == np.uint8
    assert batch.actions.shape == (6, 3, 5, 2) and not batch.actions.any()


def test_views_depend_on_seed_and_place_alone():
    """Place = step x batch size + row: neither the batch size nor the number of views changes the others."""
    whole = make().draw(1, 8, seed=3)
    halves = [make().draw(step, 4, seed=3) for step in (2, 3)]
    assert np.array_equal(whole.pixels, np.concatenate([half.pixels for half in halves]))
    assert np.array_equal(make(views=6).draw(1, 8, seed=3).pixels[:, :4], whole.pixels)
    again = pickle.loads(pickle.dumps(make())).draw(1, 8, seed=3)
    assert np.array_equal(again.pixels, whole.pixels)
    assert not np.array_equal(make().draw(1, 8, seed=4).pixels, whole.pixels)


def test_an_epoch_shows_every_picture_once_in_an_order_of_its_own():
    views, orders = make(), []
    for epoch in range(2):
        orders.append(np.concatenate([views.draw(2 * epoch + half, 5, seed=0).episodes for half in (0, 1)]))
    assert all(sorted(order) == list(range(10)) for order in orders) and (orders[0] != orders[1]).any()


@pytest.mark.parametrize("width", [SIDE, 120])
def test_crops_have_the_area_aspect_and_place_they_should(width):
    """The slopes of red and green say how much of the picture a view shows."""
    settings = {"global_scale": [0.4, 0.5], "local_scale": [0.1, 0.2], "aspect": 1.2, "flip": 0.5}
    pixels = make(pictures=Ramps(40, width), **settings, **PLAIN).draw(0, 40, seed=0).pixels.astype(float)
    red, green = pixels[..., 3:-3, 3:-3, 0], pixels[..., 3:-3, 3:-3, 1]
    assert np.ptp(red, axis=-2).max() <= 1 and np.ptp(green, axis=-1).max() <= 1  # neither turned nor sheared
    across = (red[..., 0, -1] - red[..., 0, 0]) / (SIZE - 7) * SIZE
    down = (green[..., -1, 0] - green[..., 0, 0]) / (SIZE - 7) * SIZE
    area = abs(across) * down / (SIDE * width)
    assert area[:, :2].min() > 0.38 and area[:, :2].max() < 0.53
    assert area[:, 2:].min() > 0.09 and area[:, 2:].max() < 0.22 and np.ptp(area[:, 2:]) > 0.05
    ratio = abs(across) / down
    assert ratio.min() > 0.95 / 1.2 and ratio.max() < 1.2 * 1.05 and np.ptp(ratio) > 0.2
    assert 0.3 < (across < 0).mean() < 0.7  # mirrored
    centres = pixels.mean((2, 3))[..., 0] / width
    assert centres[:, 2:].min() < 0.3 and centres[:, 2:].max() > 0.7
    assert (
        pixels[..., 2].reshape(40, -1) == make(pictures=Ramps(40, width)).draw(0, 40, 0).episodes[:, None]
    ).all()


def test_nothing_changes_where_nothing_is_asked_for():
    class Noise(Ramps):
        def read(self, numbers):
            return [np.random.default_rng(n).integers(0, 256, (SIZE, SIZE, 3), np.uint8) for n in numbers]

    batch = make(pictures=Noise(), **WHOLE, **PLAIN).draw(0, 4, seed=0)
    for number, views in zip(batch.episodes, batch.pixels, strict=True):
        assert all(np.array_equal(view, Noise().read([number])[0]) for view in views)


def test_gentle_views_show_most_of_the_picture_and_never_mirror_it():
    pixels = make("gentle", Ramps(40), **PLAIN).draw(0, 40, seed=0).pixels.astype(float)
    red, green = pixels[..., 0], pixels[..., 1]
    assert (np.diff(red, axis=-1) > 0).all() and (np.diff(green, axis=-2) > 0).all()
    assert red[..., 0].max() < 0.3 * SIDE and red[..., -1].min() > 0.7 * SIDE


class Colours(Ramps):
    """Two colours side by side, far enough from black and white to be changed without clipping."""

    LEFT, RIGHT = np.array([170, 70, 110]), np.array([110, 50, 70])

    def read(self, numbers):
        half = np.concatenate(
            [np.tile(c.astype(np.uint8), (SIZE, SIZE // 2, 1)) for c in (self.LEFT, self.RIGHT)], 1
        )
        return [half for _ in numbers]


def colours(**settings):
    """The left and the right colour of 40 views, (40, 2, 3)."""
    off = {
        "brightness": 0.0,
        "contrast": 0.0,
        "saturation": 0.0,
        "hue": 0.0,
        "grey": 0.0,
        "blur": 0.0,
        "jitter": 1.0,
    }
    pixels = (
        make(pictures=Colours(), **WHOLE, **off | settings).draw(0, 10, seed=0).pixels.reshape(40, SIZE, SIZE, 3)
    )
    return pixels[:, 0, [0, -1]].astype(float)


def test_each_change_of_colour_keeps_what_it_should():
    given = np.stack([Colours.LEFT, Colours.RIGHT])
    middle, luma = given.mean(0) @ LUMA, given @ LUMA
    bright = colours(brightness=0.4)
    factor = bright.sum((1, 2)) / given.sum()
    np.testing.assert_allclose(bright, factor[:, None, None] * given, atol=1.0)
    assert factor.min() < 0.7 and factor.max() > 1.3
    contrast = colours(contrast=0.4) - middle
    factor = (contrast * (given - middle)).sum((1, 2)) / ((given - middle) ** 2).sum()
    np.testing.assert_allclose(contrast, factor[:, None, None] * (given - middle), atol=1.0)
    assert factor.min() < 0.7 and factor.max() > 1.3
    saturation = colours(saturation=0.4)
    np.testing.assert_allclose(saturation @ LUMA, np.tile(luma, (40, 1)), atol=0.6)
    assert np.ptp(saturation, axis=0).max() > 20
    hue = colours(hue=0.1)
    np.testing.assert_allclose(hue.sum(-1), np.tile(given.sum(-1), (40, 1)), atol=1.5)
    np.testing.assert_allclose((hue**2).sum(-1), np.tile((given**2).sum(-1), (40, 1)), rtol=0.02)
    assert np.ptp(hue, axis=0).max() > 20
    grey = colours(grey=1.0)
    np.testing.assert_allclose(grey, np.tile(luma[:, None], (40, 1, 3)), atol=0.6)
    assert (colours(jitter=0.0, brightness=0.4) == given).all()


def test_a_third_of_a_turn_exchanges_the_colours():
    np.testing.assert_allclose(_turn(1 / 3) @ [1.0, 2.0, 3.0], [3.0, 1.0, 2.0], atol=1e-6)


def test_blur_keeps_the_mean_and_softens_the_edge():
    sharp, soft = (make(pictures=Colours(), **WHOLE, **PLAIN | {"blur": b, "blur_width": 0.1}) for b in (0.0, 1.0))
    sharp, soft = (views.draw(0, 10, seed=0).pixels.astype(float) for views in (sharp, soft))
    np.testing.assert_allclose(soft.mean((2, 3)), sharp.mean((2, 3)), atol=1)
    step = abs(np.diff(soft[..., 0], axis=-1)).max((2, 3))
    assert step.max() <= 60 and step.min() < 40  # 60 between the two colours


def test_the_standard_view_is_the_middle_square():
    (picture,) = Ramps(1, 120).read([0])
    view = standard_view(picture, 60).astype(int)
    assert abs(view[0, :, 0] - (np.arange(60) * 2 + 0.5)).max() <= 1
    assert abs(view[:, 0, 1] - (40 + np.arange(60) * 2 + 0.5)).max() <= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"global_views": 5}, "1 <= global_views <= V"),
        ({"local_scale": [0.5, 0.2]}, "local_scale is two shares"),
        ({"global_scale": [0.0, 1.0]}, "global_scale is two shares"),
        ({"flip": 1.5}, "'flip': 1.5"),
        ({"aspect": 0.5}, "'aspect': 0.5"),
        ({"sharpen": 1}, "no setting 'sharpen'"),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        make(**settings)
