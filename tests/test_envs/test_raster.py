"""Stamped shapes against counting which of many points of each pixel are covered."""

import numpy as np
import pytest

from envs import raster

SIZE, FINE = 40, 16
BAR = [(0.0, -6.0, 12.0, 3.0), (0.0, 0.0, 3.0, 9.0)]  # a T of two overlapping boxes
RED = np.array([200.0, 0.0, 0.0])


def covered(inside):
    """Share of each pixel (SIZE, SIZE) of which `inside(x, y)` is true, counted on FINE x FINE points."""
    points = (np.arange(SIZE * FINE) + 0.5) / FINE
    hits = inside(points[None, :], points[:, None])
    return hits.reshape(SIZE, FINE, SIZE, FINE).mean((1, 3))


def in_boxes(x, y, centre, angle, parts):
    """Whether points lie in a union of turned boxes: every point is turned back into the shape's own frame."""
    dx, dy = x - centre[0], y - centre[1]
    u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    return np.any([(np.abs(u - px) <= w) & (np.abs(v - py) <= h) for px, py, w, h in parts], axis=0)


def stamped(centre, reach, sdf, size=SIZE):
    """Coverage (size, size) of one shape, read off the red of an image that was black."""
    image = np.zeros((1, size, size, 3), np.uint8)
    raster.stamp(image, np.array([centre], float), reach, sdf, RED)
    assert not image[..., 1:].any()
    return image[0, ..., 0] / RED[0]


def compare(ours, truth):
    assert abs(ours.sum() / truth.sum() - 1) < 0.03  # the area
    edge = (truth > 0) & (truth < 1)
    assert np.abs(ours - truth)[edge].mean() < 0.06
    assert np.abs(ours - truth).max() < 0.3  # at the corners, where a distance says little about the area
    assert (ours[truth == 1] > 0.85).all() and (ours[truth == 0] < 0.15).all()


@pytest.mark.parametrize("radius", [2.0, 5.5, 11.0])
@pytest.mark.parametrize("centre", [(20.0, 20.0), (17.3, 22.8), (13.5, 25.25)])
def test_a_disc_covers_what_it_should(radius, centre):
    truth = covered(lambda x, y: np.hypot(x - centre[0], y - centre[1]) <= radius)
    compare(stamped(centre, radius, raster.disc(radius)), truth)


@pytest.mark.parametrize("angle", [0.0, 0.4, np.pi / 2, 2.5, -1.1])
def test_boxes_cover_what_they_should(angle):
    centre = (19.2, 20.7)
    truth = covered(lambda x, y: in_boxes(x, y, centre, angle, BAR))
    compare(stamped(centre, 16.0, raster.boxes(np.array([angle]), BAR)), truth)


@pytest.mark.parametrize(("true", "corner"), [(True, 5.0), (False, 4.0)])
def test_distances_to_a_box(true, corner):
    """Outside of a face, beside a corner, inside, in the middle; turned by a right angle they are the same."""
    x, y = np.array([[5.0, 5.0, 1.5, 0.0, -2.0]]), np.array([[0.0, 5.0, 0.0, 0.0, -4.0]])
    expected = [3.0, corner, -0.5, -1.0, 3.0]  # of half sizes 2 and 1; at the corner, to it or to the farther line
    sdf = raster.boxes(np.zeros(1), [(0.0, 0.0, 2.0, 1.0)], true)
    assert sdf(x, y)[0].ravel() == pytest.approx(expected, abs=1e-6)
    turned = raster.boxes(np.array([np.pi / 2]), [(0.0, 0.0, 2.0, 1.0)], true)
    assert turned(-y, x)[0].ravel() == pytest.approx(expected, abs=1e-5)


def test_the_patch_cuts_nothing_off():
    """A patch as large as the image gives the same picture, wherever in its pixel the centre lies."""
    rng = np.random.default_rng(0)
    for radius in (0.3, 2.0, 6.49, 9.5):
        for centre in rng.uniform(12, 28, (20, 2)):
            tight, wide = (stamped(centre, reach, raster.disc(radius)) for reach in (radius, SIZE))
            assert np.array_equal(tight, wide)


@pytest.mark.parametrize(
    "centre", [(1.0, 20.0), (39.2, 20.0), (20.0, -3.0), (20.3, 41.0), (0.0, 0.0), (-4.0, 43.0)]
)
def test_a_shape_across_the_border_is_part_of_the_whole_shape(centre):
    """As if it had been drawn into a larger image, of which this one is the middle."""
    sdf = raster.boxes(np.array([0.7]), BAR)
    larger = stamped(np.add(centre, SIZE), 16.0, sdf, 3 * SIZE)[SIZE : 2 * SIZE, SIZE : 2 * SIZE]
    assert np.array_equal(stamped(centre, 16.0, sdf), larger)
    assert larger.any() and larger.sum() < 0.95 * stamped((20, 20), 16.0, sdf).sum()


def test_a_shape_beyond_the_border_leaves_the_image_alone():
    for centre in ((-30.0, 20.0), (20.0, 90.0), (70.0, -40.0)):
        assert not stamped(centre, 6.0, raster.disc(6.0)).any()


def test_each_image_has_its_own_place_colour_size_and_angle():
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (5, SIZE, SIZE, 3)).astype(np.uint8)
    centres, colours = rng.uniform(5, 35, (5, 2)), rng.uniform(0, 255, (5, 3))
    radii, angles = rng.uniform(2, 7, 5), rng.uniform(0, 6, 5)
    together = images.copy()
    raster.stamp(together, centres, radii.max(), raster.disc(radii[:, None, None]), colours)
    raster.stamp(together, centres[::-1], 16.0, raster.boxes(angles, BAR), colours[::-1])
    for k in range(5):
        alone = images[k : k + 1].copy()
        raster.stamp(alone, centres[k : k + 1], radii[k], raster.disc(radii[k]), colours[k])
        raster.stamp(alone, centres[4 - k : 5 - k], 16.0, raster.boxes(angles[k : k + 1], BAR), colours[4 - k])
        assert np.array_equal(together[k], alone[0])
    assert not np.array_equal(together, images)


def test_an_edge_is_a_blend_of_what_is_on_either_side():
    """A box whose face runs through the middle of a column of pixels: half of each colour there, rounded."""
    images = np.full((1, 20, 20, 3), (11, 100, 250), np.uint8)
    sdf = raster.boxes(np.zeros(1), [(0.0, 0.0, 4.5, 4.0)])
    raster.stamp(images, np.array([[10.0, 10.0]]), 6.1, sdf, np.array([210, 0, 50]))
    assert images[0, 10, [4, 5, 6, 13, 14, 15]].tolist() == [
        [11, 100, 250],
        [111, 50, 150],
        [210, 0, 50],
        [210, 0, 50],
        [111, 50, 150],
        [11, 100, 250],
    ]
    assert images[0, [5, 6, 13, 14], 10].tolist() == [[11, 100, 250], [210, 0, 50], [210, 0, 50], [11, 100, 250]]
