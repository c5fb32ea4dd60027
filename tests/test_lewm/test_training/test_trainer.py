"""The training loop: it learns, it continues bit for bit, it stops when numbers break."""

import json

import pytest
import torch

from lewm.diagnosis import effective_rank
from lewm.objectives import LeJEPA, LossTerms
from lewm.training import Trainer, warmup_cosine
from lewm.types import InputError

SETTINGS = {"steps": 12, "batch_size": 8, "warmup": 3, "log_every": 3, "save_every": 4}


class Interrupted(Exception):
    pass


def nothing(step, metrics):
    pass


def fit(model, windows, run, on_step=nothing, objective=None, **settings):
    run.mkdir(exist_ok=True)
    trainer = Trainer(**SETTINGS | settings)
    trainer.fit(model, objective or LeJEPA(directions=16), windows, run, seed=5, on_step=on_step)
    return model


def interrupt_after(step):
    def on_step(done, metrics):
        if done == step:
            raise Interrupted

    return on_step


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same_weights(model, other):
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


class OneBatch:
    """Windows that always draw the same batch."""

    def __init__(self, windows):
        self.windows = windows

    def draw(self, step, batch_size, seed):
        return self.windows.draw(0, batch_size, seed)


def test_one_batch_can_be_learned_by_heart(make_model, windows, tmp_path):
    losses = {}
    fit(
        make_model(),
        OneBatch(windows),
        tmp_path,
        lambda step, metrics: losses.update({step: metrics["loss"]}),
        **{"steps": 120, "learning_rate": 1e-2, "batch_size": 16, "log_every": 1, "warmup": 10},
    )
    assert losses[120] < 0.2 * losses[1]
    last = metrics(tmp_path)[-1]
    assert last["prediction"] < 0.05  # of latents of about unit variance, so that zero is no way out
    assert last["latent_std"] > 0.7


@pytest.mark.parametrize("predictor", ["residual_mlp", "adaln_transformer"])
@pytest.mark.parametrize("stops", [(3,), (7,), (8,), (5, 10), (12,)], ids=str)
def test_interrupted_run_continues_to_the_same_bits(make_model, windows, tmp_path, predictor, stops):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = fit(make_model(predictor), windows, whole)
    for stop in stops:
        with pytest.raises(Interrupted):
            fit(make_model(predictor), windows, parts, interrupt_after(stop))
    resumed = fit(make_model(predictor), windows, parts)
    assert_same_weights(resumed, expected)
    assert (parts / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    assert [line["step"] for line in metrics(parts)] == [3, 6, 9, 12]


def test_resumed_steps_start_after_the_last_saved_one(make_model, windows, tmp_path):
    with pytest.raises(Interrupted):
        fit(make_model(), windows, tmp_path, interrupt_after(7))
    steps = []
    model = fit(make_model(), windows, tmp_path, lambda step, _: steps.append(step))
    assert steps == list(range(5, 13))
    assert not model.training
    fit(make_model(), windows, tmp_path, lambda step, _: steps.append(step))  # finished: nothing to do
    assert steps == list(range(5, 13))
    assert len(metrics(tmp_path)) == 4


def test_torn_last_line_of_metrics_is_dropped(make_model, windows, tmp_path):
    expected = fit(make_model(), windows, tmp_path / "whole")
    with pytest.raises(Interrupted):
        fit(make_model(), windows, tmp_path / "torn", interrupt_after(7))
    with (tmp_path / "torn" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "lo')
    assert_same_weights(fit(make_model(), windows, tmp_path / "torn"), expected)
    assert metrics(tmp_path / "torn") == metrics(tmp_path / "whole")


def test_training_depends_on_the_seed_and_not_on_the_global_generator(make_model, windows, tmp_path):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = fit(make_model("adaln_transformer"), windows, tmp_path / "a")
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert_same_weights(fit(make_model("adaln_transformer"), windows, tmp_path / "b"), first)
    other = make_model("adaln_transformer")
    (tmp_path / "c").mkdir()
    Trainer(**SETTINGS).fit(other, LeJEPA(directions=16), windows, tmp_path / "c", seed=6, on_step=nothing)
    assert not torch.equal(other.projector[0].weight, first.projector[0].weight)


def test_first_metrics_are_those_of_the_first_batch(make_model, windows, tmp_path):
    seen = []

    class Spy(LeJEPA):
        def __call__(self, z, *rest):
            seen.append((z.detach(), super().__call__(z, *rest)))
            return seen[-1][1]

    fit(make_model(), windows, tmp_path, objective=Spy(directions=16), steps=2, log_every=1)
    for step, (z, terms) in enumerate(seen):
        line = metrics(tmp_path)[step]
        for name, term in (
            ("loss", "total"),
            ("prediction", "prediction"),
            ("regularisation", "regularisation"),
        ):
            assert line[name] == getattr(terms, term).item()
        assert line["learning_rate"] == Trainer().learning_rate * warmup_cosine(step, 2, 3)
        assert line["effective_rank"] == effective_rank(z.flatten(0, 1))
        assert line["latent_std"] == pytest.approx(z.flatten(0, 1).std(0).mean().item())
    expected = windows.draw(0, 8, 5)
    z = make_model().train().encode(torch.from_numpy(expected.pixels))
    torch.testing.assert_close(seen[0][0], z.detach())


def damage(path, kind):
    if kind == "cut short":
        path.write_bytes(path.read_bytes()[:-200])
    elif kind == "no archive":
        path.write_bytes(b"not a training state")
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        state = torch.load(path, weights_only=True)
        torch.save({key: value for key, value in state.items() if key != kind}, path)


@pytest.mark.parametrize("kind", ["cut short", "no archive", "empty", "model", "optimiser", "step"])
def test_damaged_training_state_is_an_error(make_model, windows, tmp_path, kind):
    fit(make_model(), windows, tmp_path)
    damage(tmp_path / "training_state.pt", kind)
    with pytest.raises(InputError, match=r"training_state.pt cannot be read"):
        fit(make_model(), windows, tmp_path)


def test_training_state_of_another_model_is_an_error(make_model, windows, tmp_path):
    fit(make_model(), windows, tmp_path)
    with pytest.raises(InputError, match=r"training_state.pt cannot be read"):
        fit(make_model("adaln_transformer"), windows, tmp_path)


class Breaks(LeJEPA):
    """A loss (or only its gradient) that is not a number from the third step on."""

    def __init__(self, what):
        super().__init__(directions=16)
        self.calls, self.what = 0, what

    def __call__(self, z, *rest):
        self.calls += 1
        terms = super().__call__(z, *rest)
        if self.calls < 3:
            return terms
        poison = z.sum() * torch.nan if self.what == "loss" else (z.sum() * 0).sqrt()
        return LossTerms(terms.total + poison, terms.prediction, terms.regularisation)


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize(("log_every", "save_every"), [(1, 1), (4, 2), (12, 1)])
def test_broken_numbers_are_an_error_and_the_last_good_state_is_kept(
    make_model, windows, tmp_path, what, log_every, save_every
):
    options = {"log_every": log_every, "save_every": save_every}
    with pytest.raises(InputError, match=r"became (nan|inf) .*learning_rate"):
        fit(make_model(), windows, tmp_path, objective=Breaks(what), **options)
    state = torch.load(tmp_path / "training_state.pt", weights_only=True)
    assert state["step"] == 2
    assert all(tensor.isfinite().all() for tensor in state["model"].values())


def test_divergence_is_an_error_that_says_what_to_do(make_model, windows, tmp_path):
    with pytest.raises(InputError, match=r"lower trainer\.learning_rate \(now 1e\+30\)"):
        fit(make_model(), windows, tmp_path, learning_rate=1e30, log_every=1)


@pytest.mark.parametrize(
    "settings",
    [{"steps": 0}, {"batch_size": 1}, {"frames": 1}, {"log_every": 0}, {"save_every": 0}, {"save_every": -5}],
    ids=str,
)
def test_impossible_settings_are_errors(settings):
    with pytest.raises(InputError, match="steps, log_every, save_every >= 1 and batch_size, frames >= 2"):
        Trainer(**settings)
