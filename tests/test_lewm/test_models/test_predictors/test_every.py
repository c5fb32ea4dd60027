"""What holds of every registered predictor; one that is added is tested here as soon as it is registered."""

import pytest
import torch
from torch import nn

from lewm import registry
from lewm.models.predictors import Predictor
from lewm.types import InputError

D, E = 6, 4
NAMES = [n for n in registry.names("predictor") if registry.get("predictor", n).__module__.startswith("lewm.")]
CASES = [(name, None) for name in NAMES]
CASES += [(name, 2) for name in NAMES if registry.defaults("predictor", name).get("history", 2) != 2]
every = pytest.mark.parametrize(("name", "history"), CASES, ids=[n if h is None else f"{n}_{h}" for n, h in CASES])


def make(name, history=None, seed=0, **options):
    """A small one in float64, in which nothing that starts as zero, or as the identity, is so."""
    settings = registry.defaults("predictor", name)
    small = {k: min(v, 3) if v <= 8 else 8 for k, v in settings.items() if type(v) is int}
    chosen = {} if history is None else {"history": history}
    torch.manual_seed(seed)
    spec = {"name": name, **small, **chosen, **options}
    predictor = registry.build("predictor", spec, latent_dim=D, block_dim=E).double().eval()
    for key, tensor in (*predictor.named_parameters(), *predictor.named_buffers()):
        if key.endswith("running_var"):
            nn.init.uniform_(tensor, 0.5, 2)
        elif tensor.is_floating_point() and (key.endswith(("bias", "running_mean")) or not tensor.any()):
            nn.init.normal_(tensor, std=0.3)
    return predictor


def problem(predictor, seen=None, rows=2, samples=3, steps=7):
    """Observed latents, the blocks between them and candidate futures."""
    generator = torch.Generator().manual_seed(1)
    seen = seen or predictor.history
    sizes = ((rows, seen, D), (rows, seen - 1, E), (rows, samples, steps, E))
    return [torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes]


def window(predictor, rows=1):
    """The longest teacher-forced window it takes, up to history + 2."""
    frames = predictor.history + 2
    try:
        predictor(torch.zeros(1, frames, D).double(), torch.zeros(1, frames, E).double())
    except InputError:
        frames = predictor.history
    return [torch.randn(rows, frames, size).double().requires_grad_() for size in (D, E)]


def gradients(predictor, rollout, inputs, steps):
    """Of a random combination of latents, in all inputs and parameters."""
    z, past, future = (tensor.clone().requires_grad_() for tensor in inputs)
    latents = rollout(predictor.observe(z, past), future[:, :, :steps])
    weights = torch.randn(latents.shape, generator=torch.Generator().manual_seed(2), dtype=latents.dtype)
    wanted = (z, past, future, *predictor.parameters())
    return torch.autograd.grad((latents * weights).sum(), wanted, allow_unused=True, materialize_grads=True)


class Ball(nn.Module):
    """A link that is not linear: into the unit ball."""

    def forward(self, x):
        return x / (1 + x.norm(dim=-1, keepdim=True))


@every
@pytest.mark.parametrize("link", [nn.Identity(), Ball()], ids=["free", "ball"])
def test_fast_rollout_equals_the_plain_one_in_value_and_gradient(name, history, link):
    predictor = make(name, history)
    predictor.link = link
    for seen in range(1, predictor.history + 1):
        inputs = problem(predictor, seen)
        with torch.no_grad():
            observed = predictor.observe(*inputs[:2])
            plain = predictor.plain_rollout(observed, inputs[2])
            assert plain.shape == (2, 3, 7, D)
            for steps in range(1, 8):
                fast = predictor.rollout(observed, inputs[2][:, :, :steps])
                torch.testing.assert_close(fast, plain[:, :, :steps], rtol=1e-10, atol=1e-10)
        for steps in (1, 7):
            fast = gradients(predictor, predictor.rollout, inputs, steps)
            plain = gradients(predictor, predictor.plain_rollout, inputs, steps)
            assert sum(gradient.any() for gradient in plain) > 4
            for one, other in zip(fast, plain, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@every
def test_float32(name, history):
    """Without gradients oneDNN does the products."""
    exact, predictor = make(name, history), make(name, history).float()
    z, past, future = problem(exact)
    with torch.no_grad():
        expected = exact.plain_rollout(exact.observe(z, past), future)
        observed = predictor.observe(z.float(), past.float())
        for rollout in (predictor.rollout, predictor.plain_rollout):
            error = rollout(observed, future.float()) - expected
            assert error.abs().max() < 1e-5 * expected.abs().max()


@every
def test_bfloat16(name, history):
    predictor = make(name, history).float()
    z, past, future = (tensor.float() for tensor in problem(predictor, steps=4))
    with torch.no_grad():
        exact = predictor.rollout(predictor.observe(z, past), future)
        with torch.autocast("cpu", torch.bfloat16):
            rough = predictor.rollout(predictor.observe(z, past), future)
    assert 0 < (rough - exact).abs().max() < 0.1 * exact.abs().max()


@every
def test_forward_looks_at_this_and_earlier_frames_only(name, history):
    predictor = make(name, history)
    z, actions = window(predictor)
    for t in range(z.shape[1]):
        weights = torch.randn(D, dtype=torch.float64)  # a sum would be constant after a LayerNorm
        for gradient in torch.autograd.grad((predictor(z, actions)[0, t] * weights).sum(), (z, actions)):
            size = gradient[0].abs().amax(-1)
            assert (size[t + 1 :] == 0).all()
            first = 0 if predictor.recurrent else max(0, t + 1 - predictor.history)
            assert (size[first : t + 1] > 1e-6).all()  # history is used
            assert (size[:first] == 0).all()  # and no more than it


@every
@pytest.mark.parametrize("steps", [1, 5])
def test_rollouts_equal_single_predictions(name, history, steps):
    """The window grows from the observed frames to `history`, then slides; of a recurrent one it grows on."""
    predictor = make(name, history)
    if type(predictor).plain_rollout is not Predictor.plain_rollout:
        steps = 1  # what it means by more is its own
    longest = 99 if predictor.recurrent else predictor.history
    for seen in range(1, predictor.history + 1):
        z, past, future = problem(predictor, seen, samples=2, steps=steps)
        imagined = predictor.rollout(predictor.observe(z, past), future)
        for row, sample in ((0, 1), (1, 0)):
            latents, actions = list(z[row]), [*past[row], *future[row, sample]]
            for _ in range(steps):
                recent = torch.stack(latents[-longest:])[None]
                between = torch.stack(actions[: len(latents)][-longest:])[None]
                latents.append(predictor(recent, between)[0, -1])
            torch.testing.assert_close(imagined[row, sample], torch.stack(latents[seen:]), rtol=1e-10, atol=1e-10)


@every
def test_rows_and_candidates_depend_on_no_other(name, history):
    predictor = make(name, history)
    z, past, future = problem(predictor, rows=4)
    observed = predictor.observe(z, past)
    part, whole = observed[1:3], predictor.rollout(observed, future)
    assert (type(part), len(observed), len(part)) == (type(observed), 4, 2)
    assert torch.equal(part.z_BTD, z[1:3])
    assert torch.equal(part.past_BTE, past[1:3])
    torch.testing.assert_close(predictor.rollout(part, future[1:3]), whole[1:3], rtol=1e-12, atol=1e-12)
    changed = future.clone()
    changed[:, 1:] += 1
    after = predictor.rollout(observed, changed)
    torch.testing.assert_close(after[:, 0], whole[:, 0], rtol=1e-12, atol=1e-12)
    assert (after[:, 1:] - whole[:, 1:]).abs().amax((-1, -2)).min() > 1e-4
    frames, actions = (tensor.detach() for tensor in window(predictor, rows=3))
    alone = predictor(frames[1:2], actions[1:2])
    torch.testing.assert_close(predictor(frames, actions)[1:2], alone, rtol=1e-12, atol=1e-12)


@every
def test_what_is_predicted_passes_through_the_link(name, history):
    predictor = make(name, history)
    z, actions = window(predictor)
    free = predictor(z, actions)
    predictor.link = Ball()
    torch.testing.assert_close(predictor(z, actions), Ball()(free), rtol=1e-12, atol=1e-12)


@every
def test_its_state_dict_is_all_it_is(name, history):
    predictor, other = make(name, history), make(name, history, seed=1)
    z, past, future = problem(predictor)
    expected = predictor.rollout(predictor.observe(z, past), future)
    assert not torch.equal(other.rollout(other.observe(z, past), future), expected)
    other.load_state_dict(predictor.state_dict())
    assert torch.equal(other.rollout(other.observe(z, past), future), expected)


@every
def test_observing_too_little_or_too_much_is_an_error(name, history):
    predictor = make(name, history)
    most = predictor.history
    for frames, blocks in ((0, 0), (most + 1, most), (1, 1), (most, most)):
        with pytest.raises(InputError, match=rf"1 to {most} frames .* got {frames} frames and {blocks} blocks"):
            predictor.observe(torch.zeros(1, frames, D), torch.zeros(1, blocks, E))


@pytest.mark.parametrize("name", NAMES)
def test_one_batch_of_a_linear_system_can_be_learnt(name):
    """By its own rollouts in training mode: batch statistics, no dropout."""
    settings = registry.defaults("predictor", name)
    options = {"dropout": 0.0} if "dropout" in settings else {}
    torch.manual_seed(0)
    small = {k: 1 if "depth" in k else min(v, 16) for k, v in settings.items() if type(v) is int}
    predictor = registry.build("predictor", {"name": name, **small, **options}, latent_dim=D, block_dim=E)
    turn, push = torch.randn(D, D) / D**0.5, torch.randn(E, D) / E**0.5
    z, actions = torch.randn(32, 1, D), torch.randn(32, 1, 2, E)
    targets = [z]
    for action in actions.unbind(2):
        targets.append(targets[-1] @ turn + action @ push)
    targets = torch.stack(targets[1:], dim=2)
    optimiser = torch.optim.Adam(predictor.parameters(), lr=0.02)
    nothing = torch.zeros(32, 0, E)
    for _ in range(100):
        error = (predictor.rollout(predictor.observe(z, nothing), actions) - targets).square().mean()
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
    assert error < 0.1 * (z[:, :, None] - targets).square().mean()
