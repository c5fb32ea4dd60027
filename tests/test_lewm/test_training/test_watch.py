"""What goes wrong is said, once, with advice; a healthy run is left in peace."""

import pytest
import torch

from lewm.training.watch import START, Watch


class Clock:
    """Time that passes when it is told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def said():
    return []


def watch(said, **settings):
    return Watch(**{"steps": 400, "warmup": 20, "clip": 1.0, "tell": said.append} | settings)


def latents(seed, rows=64, dim=8):
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


def look(observer, losses, norms=None, z=latents):
    for k, loss in enumerate(losses):
        observer.look(10 * (k + 1), loss, norms[k] if norms else 0.5, z(k))


def falling(count):
    return [1.0 / (1 + 0.2 * k) + 0.02 * (k % 3) for k in range(count)]


def test_a_healthy_run_is_left_in_peace(said):
    clock = Clock()
    observer = watch(said, clock=clock)
    for _ in observer.timed(arriving(clock, 200, seconds=0.01)):
        clock.now += 0.1
    look(observer, falling(40), [2.0 if k % 2 else 0.5 for k in range(40)])
    assert said == []


@pytest.mark.parametrize(
    ("space", "what"),
    [
        (lambda k: 1e-3 * latents(k), "collapsed"),
        (lambda k: latents(k)[:, :1] * torch.ones(8), "on a line"),
    ],
)
def test_collapse(said, space, what):
    look(watch(said), falling(10), z=space)
    assert len(said) == 1 and what in said[0] and "objective.regulariser.weight" in said[0]


def test_the_space_of_a_frozen_encoder_is_as_it_is(said):
    look(watch(said, shaped=False), falling(10), z=lambda k: 1e-3 * latents(k))
    assert said == []


def test_a_space_may_be_small_for_a_moment_and_before_the_warm_up_is_over(said):
    small = {0, 1, 5, 6, 9}
    look(watch(said), falling(20), z=lambda k: latents(k) * (1e-3 if k in small else 1))
    look(watch(said, warmup=100), falling(10), z=lambda k: 1e-3 * latents(k))
    assert said == []


def test_a_few_rows_say_nothing(said):
    look(watch(said), falling(10), z=lambda k: 1e-3 * latents(k, rows=8))
    assert said == []


def test_a_rising_loss(said):
    look(watch(said), falling(30) + [0.4 + 0.02 * k for k in range(10)])
    assert len(said) == 1 and "the loss rises" in said[0] and "trainer.learning_rate" in said[0]


def test_a_loss_may_be_negative(said):
    look(watch(said), [-1.0 - 0.1 * k for k in range(40)])
    assert said == []
    look(watch(said), [-2.0] * 30 + [-0.5] * 10)
    assert len(said) == 1 and "the loss rises" in said[0]


def test_gradients_that_are_clipped_to_the_end(said):
    look(watch(said), falling(40), [5.0] * 40)
    assert len(said) == 1 and "norm is 5, trainer.clip 1" in said[0]


def test_gradients_may_be_clipped_early(said):
    look(watch(said), falling(40), [5.0] * 22 + [0.5] * 18)
    assert said == []


def test_a_warm_up_that_never_ends(said):
    for settings in ({"steps": 20}, {"steps": 21}):
        list(watch(said, **settings).timed([]))
    assert len(said) == 1 and "warm-up of 20 steps does not end within the 20 steps" in said[0]


def arriving(clock, count, seconds):
    """Batches that take so long to come."""
    for k in range(count):
        clock.now += seconds
        yield k


@pytest.mark.parametrize(("waiting", "speaks"), [(0.05, True), (0.02, False)])
def test_waiting_for_data(said, waiting, speaks):
    clock = Clock()
    observer = watch(said, clock=clock)
    for k in observer.timed(arriving(clock, 200, waiting)):
        clock.now += 0.1
        if k == 150:
            observer.look(150, 1.0, 0.5, latents(0))
    assert len(said) == speaks
    if speaks:
        assert "33% of the time goes to waiting for data (50 ms a step)" in said[0] and "cache=ram" in said[0]


def test_slow_first_batches_do_not_count(said):
    clock = Clock()
    observer = watch(said, clock=clock)
    for k in observer.timed(arriving(clock, START + 1, 10.0)):
        if k == START:
            observer.look(1, 1.0, 0.5, latents(0))
    assert said == []
