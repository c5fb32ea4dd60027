"""The transformer: AdaLN-zero, dropout, and its fast rollout against the plain one."""

from dataclasses import fields

import pytest
import torch

from lewm.models import AdaLNTransformer
from lewm.models.predictors import Observed
from lewm.types import InputError

D, E = 6, 4


def make(history=3, dtype=torch.float64, **options):
    """A predictor whose actions and positions matter, with BatchNorm statistics that are not the identity."""
    torch.manual_seed(0)
    sizes = {"depth": 2, "heads": 2, "head_dim": 4, "hidden": 16, "action_hidden": 8}
    predictor = AdaLNTransformer(D, E, history=history, **(sizes | options))
    for name, tensor in (*predictor.named_parameters(), *predictor.named_buffers()):
        if "modulation" in name or name.endswith("bias"):
            torch.nn.init.normal_(tensor, std=0.5)
        elif name.endswith("running_var"):
            torch.nn.init.uniform_(tensor, 0.5, 2)
    return predictor.to(dtype).eval()


def problem(seen, rows=2, samples=3, steps=5, dtype=torch.float64):
    """Observed latents, the blocks between them, candidate futures."""
    generator = torch.Generator().manual_seed(1)
    sizes = ((rows, seen, D), (rows, seen - 1, E), (rows, samples, steps, E))
    return [torch.randn(size, generator=generator, dtype=dtype) for size in sizes]


def results(predictor, rollout, inputs):
    """Latents, and the gradient of a random combination of them in the inputs and the parameters."""
    z, past, future = (tensor.clone().requires_grad_() for tensor in inputs)
    latents = rollout(predictor.observe(z, past), future)
    weights = torch.randn(latents.shape, generator=torch.Generator().manual_seed(2), dtype=latents.dtype)
    wanted = (z, future, *([past] if past.numel() else []), *predictor.parameters())
    return latents, *torch.autograd.grad(
        (latents * weights).sum(), wanted, allow_unused=True, materialize_grads=True
    )


WINDOWS = [(history, seen) for history in range(1, 5) for seen in range(1, history + 1)]


@pytest.mark.parametrize(("history", "seen"), WINDOWS)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 12])
def test_fast_rollout_equals_the_plain_one_in_value_and_gradient(history, seen, steps):
    predictor = make(history)
    inputs = problem(seen, steps=steps)
    fast, plain = (results(predictor, rollout, inputs) for rollout in (predictor.rollout, predictor.plain_rollout))
    for one, other in zip(fast, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("rows", "samples"), [(1, 1), (1, 7), (3, 1), (2, 7)])
def test_in_pieces_on_a_cpu_and_whole_elsewhere(rows, samples, monkeypatch):
    predictor = make()
    monkeypatch.setattr(AdaLNTransformer, "chunk", 3)
    z, past, future = problem(3, rows, samples)
    with torch.no_grad():
        observed = predictor.observe(z, past)
        plain = predictor.plain_rollout(observed, future)
        torch.testing.assert_close(predictor.rollout(observed, future), plain, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(predictor._imagine(observed, future), plain, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("seen", "threads"), [(3, 1), (1, 2)])
def test_float32_of_the_published_size(seen, threads):
    """Here oneDNN does the products; a row is the same bits whatever rows share the batch."""
    torch.manual_seed(0)
    predictor = AdaLNTransformer(192, 10).eval()
    for block in predictor.blocks:
        torch.nn.init.normal_(block.modulation.weight, std=0.05)
    z, past, future = torch.randn(2, seen, 192), torch.randn(2, seen - 1, 10), torch.randn(2, 12, 4, 10)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            observed = predictor.observe(z, past)
            fast, plain = predictor.rollout(observed, future), predictor.plain_rollout(observed, future)
            assert (fast - plain).abs().max() < 1e-5 * plain.abs().max()
            for row in range(2):
                assert torch.equal(predictor.rollout(observed[row : row + 1], future[row : row + 1])[0], fast[row])
    finally:
        torch.set_num_threads(before)


def test_what_is_observed_is_encoded_once():
    predictor = make()
    z, past, future = problem(3)
    observed = predictor.observe(z, past)
    assert {field.name for field in fields(observed)} > {field.name for field in fields(Observed)}
    observed.z_BTD[:, :-1] = 0  # only the last frame may be looked at again: its action is the candidate's
    observed.past_BTE[:] = 0
    expected = predictor.plain_rollout(Observed(*problem(3)[:2]), future)
    torch.testing.assert_close(predictor.rollout(observed, future), expected, rtol=1e-10, atol=1e-10)


def test_training_takes_the_plain_rollout():
    """Dropout draws, and BatchNorm's statistics are those of all tokens."""
    predictor = make(dropout=0.5)
    z, past, future = problem(3)
    observed = predictor.observe(z, past)
    predictor.train()
    for given in (observed, predictor.observe(z, past)):
        drawn = []
        for rollout in (predictor.rollout, predictor.plain_rollout):
            torch.manual_seed(3)
            drawn.append(rollout(given, future))
        assert torch.equal(*drawn)


@pytest.mark.slow
@pytest.mark.parametrize("gradients", [False, True])
def test_rollout_is_one_graph(gradients):
    """No control flow depends on data, so torch.compile sees all of it."""
    predictor = make(dtype=torch.float32)
    z, past, future = problem(2, dtype=torch.float32)

    def imagine(z, past, future):
        return predictor.rollout(predictor.observe(z, past), future)

    with torch.set_grad_enabled(gradients):
        compiled = torch.compile(imagine, fullgraph=True, backend="eager")(z, past, future)
        torch.testing.assert_close(compiled, imagine(z, past, future))


def test_rollout_in_bfloat16():
    predictor = make(dtype=torch.float32)
    z, past, future = problem(3, dtype=torch.float32)
    with torch.no_grad():
        exact = predictor.rollout(predictor.observe(z, past), future)
        with torch.autocast("cpu", torch.bfloat16):
            observed = predictor.observe(z, past)
            fast, plain = predictor.rollout(observed, future), predictor.plain_rollout(observed, future)
    spread = exact.std()
    assert (fast - exact).std() < 0.05 * spread
    assert (fast - exact).std() < 2 * (plain - exact).std()
    assert not torch.equal(fast, exact)


def test_adaln_zero_starts_as_the_identity():
    torch.manual_seed(0)
    predictor = AdaLNTransformer(D, E, depth=3, heads=2, head_dim=4, hidden=16, action_hidden=8)
    x, condition = torch.randn(2, 3, D), torch.randn(2, 3, D)
    for block in predictor.blocks:
        assert torch.equal(block(x, condition), x)
    predictor.eval()
    z, actions = torch.randn(2, 3, D), torch.randn(2, 3, E)
    head = predictor.projector(predictor.norm(z + predictor.position).flatten(0, 1)).unflatten(0, (2, 3))
    torch.testing.assert_close(predictor(z, actions), head)


def test_dropout_is_active_in_training_only():
    predictor = make()
    z, actions = torch.randn(1, 3, D, dtype=torch.float64), torch.randn(1, 3, E, dtype=torch.float64)
    assert torch.equal(predictor(z, actions), predictor(z, actions))
    predictor.train()
    predictor.projector.eval()  # BatchNorm is not what is tested
    assert not torch.equal(predictor(z, actions), predictor(z, actions))


def test_more_frames_than_its_history_are_refused():
    with pytest.raises(
        InputError, match=r"history 3 takes at most as many frames, got 4; train with trainer.frames=4"
    ):
        make()(torch.zeros(1, 4, D, dtype=torch.float64), torch.zeros(1, 4, E, dtype=torch.float64))
