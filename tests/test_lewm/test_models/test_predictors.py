"""Predictors: causality, rollouts against single predictions, AdaLN-zero. The fast rollout: test_adaln.py."""

import pytest
import torch

from lewm.models import AdaLNTransformer, ResidualMLP
from lewm.models.predictors import Observed
from lewm.types import InputError

D, E = 6, 4
MLPS = [("residual_mlp", 1), ("residual_mlp_2", 1), ("residual_mlp_2", 2)]
NAMES = ["residual_mlp", "residual_mlp_2", "adaln_transformer"]


def make(name):
    """A small predictor in float64 whose action matters."""
    torch.manual_seed(0)
    if name.startswith("residual_mlp"):
        return ResidualMLP(D, E, history=2 if name.endswith("2") else 1, width=16, depth=2).double().eval()
    predictor = AdaLNTransformer(D, E, history=3, depth=2, heads=2, head_dim=4, hidden=16, action_hidden=8)
    for block in predictor.blocks:
        torch.nn.init.normal_(block.modulation.weight, std=0.5)
    return predictor.double().eval()


def problem(predictor, rows=2, samples=3, steps=4):
    """Observed latents, past blocks and candidate futures, all with gradients."""
    generator = torch.Generator().manual_seed(1)
    sizes = ((rows, predictor.history, D), (rows, predictor.history - 1, E), (rows, samples, steps, E))
    return [torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in sizes]


@pytest.mark.parametrize("name", NAMES)
def test_forward_looks_at_this_and_earlier_frames_only(name):
    predictor = make(name)
    z = torch.randn(1, 3, D, dtype=torch.float64, requires_grad=True)
    actions = torch.randn(1, 3, E, dtype=torch.float64, requires_grad=True)
    for t in range(3):
        out = predictor(z, actions)[0, t]
        weights = torch.randn(D, dtype=torch.float64)  # a sum would be constant after a LayerNorm
        for gradient in torch.autograd.grad((out * weights).sum(), (z, actions)):
            size = gradient[0].abs().amax(-1)
            assert (size[t + 1 :] == 0).all()
            assert size[t] > 1e-6
            first = max(0, t + 1 - predictor.history)
            assert (size[first:t] > 1e-6).all()  # history is used
            assert (size[:first] == 0).all()  # and no more than it


@pytest.mark.parametrize(("name", "seen"), MLPS)
def test_fast_rollout_of_the_mlp_equals_the_plain_one_in_value_and_gradient(name, seen):
    predictor = make(name)
    z, past, future = problem(predictor)
    inputs = z[:, :seen], past[:, : seen - 1], future
    weights = torch.randn(2, 3, 4, D, dtype=torch.float64)
    results = []
    for rollout in (predictor.rollout, predictor.plain_rollout):
        latents = rollout(predictor.observe(*inputs[:2]), inputs[2])
        wanted = (z, future, *predictor.parameters())
        results.append((latents, *torch.autograd.grad((latents * weights).sum(), wanted)))
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("name", "seen"), [*MLPS, *(("adaln_transformer", n) for n in (1, 2, 3))])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_rollouts_equal_single_predictions(name, seen, steps):
    """The window grows from the observed frames to `history`, then slides."""
    predictor = make(name)
    z, past, future = problem(predictor, steps=steps)
    z, past = z[:, :seen], past[:, : seen - 1]
    observed = predictor.observe(z, past)
    imagined = predictor.rollout(observed, future)
    assert imagined.shape == (2, 3, steps, D)
    torch.testing.assert_close(imagined, predictor.plain_rollout(observed, future), rtol=1e-10, atol=1e-10)
    for row in range(2):
        for sample in range(3):
            latents = list(z[row])
            actions = [*past[row], *future[row, sample]]
            for _ in range(steps):
                recent = torch.stack(latents[-predictor.history :])[None]
                between = torch.stack(actions[: len(latents)][-predictor.history :])[None]
                latents.append(predictor(recent, between)[0, -1])
            torch.testing.assert_close(imagined[row, sample], torch.stack(latents[seen:]), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_rollout_of_one_candidate_depends_on_no_other(name):
    predictor = make(name)
    z, past, future = (tensor.detach() for tensor in problem(predictor))
    changed = future.clone()
    changed[:, 1:] += 1
    observed = predictor.observe(z, past)
    before, after = predictor.rollout(observed, future), predictor.rollout(observed, changed)
    torch.testing.assert_close(before[:, 0], after[:, 0], rtol=1e-12, atol=1e-12)
    assert (before[:, 1:] - after[:, 1:]).abs().amax((-1, -2)).min() > 1e-4


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


def test_adaln_block_is_the_published_formula():
    """x + gate * f(LN(LN(x) * (1 + scale) + shift)), attention then MLP; six parts of Linear(SiLU(c))."""
    block = make("adaln_transformer").blocks[0]
    x, condition = (torch.randn(2, 3, D, dtype=torch.float64) for _ in range(2))
    parts = block.modulation(condition * torch.sigmoid(condition)).split(D, dim=-1)
    expected = x
    for branch, (shift, scale, gate) in ((block.attention, parts[:3]), (block.mlp, parts[3:])):
        centred = expected - expected.mean(-1, keepdim=True)
        normal = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        expected = expected + gate * branch(normal * (1 + scale) + shift)
    torch.testing.assert_close(block(x, condition), expected, rtol=1e-10, atol=1e-10)


def test_residual_mlp_is_its_formula():
    predictor = make("residual_mlp")
    z, actions = torch.randn(2, 3, D, dtype=torch.float64), torch.randn(2, 3, E, dtype=torch.float64)
    hidden = torch.nn.functional.silu(predictor.from_latent(z) + actions @ predictor.from_action.weight.T)
    for block in predictor.blocks:
        hidden = hidden + block(hidden)
    torch.testing.assert_close(predictor(z, actions), z + predictor.out(hidden), rtol=1e-10, atol=1e-10)


def test_history_two_adds_what_changed_to_the_formula():
    """A frame without one before gets nothing."""
    predictor, plain = make("residual_mlp_2"), make("residual_mlp")
    plain.load_state_dict({k: v for k, v in predictor.state_dict().items() if not k.startswith("from_past")})
    z, actions = torch.randn(2, 3, D, dtype=torch.float64), torch.randn(2, 3, E, dtype=torch.float64)
    torch.testing.assert_close(predictor(z, actions)[:, 0], plain(z, actions)[:, 0], rtol=1e-10, atol=1e-10)
    past = torch.cat([z[:, 1:] - z[:, :-1], actions[:, :-1], torch.ones(2, 2, 1, dtype=torch.float64)], dim=-1)
    given = predictor.from_action(actions[:, 1:]) + past @ predictor.from_past.weight.T
    torch.testing.assert_close(
        predictor(z, actions)[:, 1:], predictor._step(z[:, 1:], given), rtol=1e-10, atol=1e-10
    )
    with pytest.raises(InputError, match="history 1 or 2"):
        ResidualMLP(D, E, history=3)


def test_dropout_is_active_in_training_only():
    predictor = make("adaln_transformer")
    z, actions = torch.randn(1, 3, D, dtype=torch.float64), torch.randn(1, 3, E, dtype=torch.float64)
    assert torch.equal(predictor(z, actions), predictor(z, actions))
    predictor.train()
    predictor.projector.eval()  # BatchNorm is not what is tested
    assert not torch.equal(predictor(z, actions), predictor(z, actions))


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_what_was_observed(name):
    predictor = make(name)
    z, past, future = (tensor.detach() for tensor in problem(predictor, rows=4))
    observed = predictor.observe(z, past)
    part = observed[1:3]
    assert isinstance(part, Observed)
    assert type(part) is type(observed)
    assert (len(observed), len(part)) == (4, 2)
    assert torch.equal(part.z_BTD, z[1:3])
    assert torch.equal(part.past_BTE, past[1:3])
    whole = predictor.rollout(observed, future)
    torch.testing.assert_close(predictor.rollout(part, future[1:3]), whole[1:3], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("frames", "blocks"), [(0, 0), (4, 3), (2, 2), (2, 0)])
def test_observing_too_little_or_too_much_is_an_error(frames, blocks):
    with pytest.raises(InputError, match=rf"1 to 3 frames .* got {frames} frames and {blocks} blocks"):
        make("adaln_transformer").observe(torch.zeros(1, frames, D), torch.zeros(1, blocks, E))
