"""The training loop: it learns, it continues bit for bit, it stops when numbers break."""

import json
import os
import signal

import pytest
import torch
from torch import nn

from lewm.diagnosis import effective_rank
from lewm.objectives import LossTerms, Objective
from lewm.training import Diverged, Stopped, Trainer, freeze, warmup_cosine
from lewm.types import InputError

SETTINGS = {"steps": 12, "batch_size": 8, "warmup": 3, "log_every": 3, "save_every": 4}


def lejepa(**options):
    return Objective(regulariser={"name": "sigreg", "directions": {"name": "iid", "count": 16}}, **options)


class Interrupted(Exception):
    pass


def nothing(step, metrics):
    pass


def fit(model, windows, run, on_step=nothing, objective=None, tell=lambda text: None, **settings):
    run.mkdir(exist_ok=True)
    trainer = Trainer(**SETTINGS | settings)
    trainer.fit(model, objective or lejepa(), windows, run, 5, on_step, tell)
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
    continue_after(make_model, windows, tmp_path, predictor, stops)


def test_so_does_one_with_micro_batches_and_an_average(make_model, windows, tmp_path):
    options = {"accumulate": 2, "ema": 0.9, "final": 0.1}
    continue_after(make_model, windows, tmp_path, "adaln_transformer", (7, 12), **options)


def continue_after(make_model, windows, tmp_path, predictor, stops, **options):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = fit(make_model(predictor), windows, whole, **options)
    for stop in stops:
        with pytest.raises(Interrupted):
            fit(make_model(predictor), windows, parts, interrupt_after(stop), **options)
    resumed = fit(make_model(predictor), windows, parts, **options)
    assert_same_weights(resumed, expected)
    assert (parts / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    assert [line["step"] for line in metrics(parts)] == [3, 6, 9, 12]


@pytest.mark.parametrize("frozen", [["encoder", "projector"], ["predictor"]], ids=str)
def test_frozen_parts_stay_to_the_bit_and_the_others_learn(make_model, windows, tmp_path, frozen):
    """Running statistics and the average of the weights included, and over an interruption."""

    def make(name):
        model = make_model(name)
        freeze(model, frozen)
        return model

    options = {"ema": 0.9, "weight_decay": 0.1}
    continue_after(make, windows, tmp_path, "adaln_transformer", (7,), **options)
    before = make_model("adaln_transformer")
    after = fit(make("adaln_transformer"), windows, tmp_path / "whole", **options)
    for part in ("encoder", "projector", "predictor"):
        old, new = (model.get_submodule(part).state_dict() for model in (before, after))
        same = [torch.equal(tensor, new[name]) for name, tensor in old.items()]
        assert all(same) if part in frozen else not any(same)


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
    Trainer(**SETTINGS).fit(other, lejepa(), windows, tmp_path / "c", seed=6, on_step=nothing)
    assert not torch.equal(other.projector[0].weight, first.projector[0].weight)


def test_first_metrics_are_those_of_the_first_batch(make_model, windows, tmp_path):
    seen = []

    def spy(encoded):
        seen.append((encoded.z_BTD.detach(), lejepa()(encoded)))
        return seen[-1][1]

    fit(make_model(), windows, tmp_path, objective=spy, steps=2, log_every=1)
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


class Breaks:
    """A loss (or only its gradient) that is not a number from the third step on."""

    def __init__(self, what):
        self.calls, self.what, self.objective = 0, what, lejepa()

    def __call__(self, encoded):
        self.calls += 1
        terms, z = self.objective(encoded), encoded.z_BTD
        if self.calls < 3:
            return terms
        if self.what == "decomposition":
            torch.linalg.eigvalsh(torch.full((4, 4), torch.nan))
        poison = z.sum() * torch.nan if self.what == "loss" else (z.sum() * 0).sqrt()
        return LossTerms(terms.total + poison, terms.parts)


@pytest.mark.parametrize("what", ["loss", "gradient", "decomposition"])
@pytest.mark.parametrize(("log_every", "save_every"), [(1, 1), (4, 2), (12, 1)])
def test_broken_numbers_are_an_error_and_the_last_good_state_is_kept(
    make_model, windows, tmp_path, what, log_every, save_every
):
    options = {"log_every": log_every, "save_every": save_every}
    with pytest.raises(Diverged, match=r"became (nan|inf) .*learning_rate"):
        fit(make_model(), windows, tmp_path, objective=Breaks(what), **options)
    state = torch.load(tmp_path / "training_state.pt", weights_only=True)
    assert state["step"] == 2
    assert all(tensor.isfinite().all() for tensor in state["model"].values())


def test_divergence_is_an_error_that_says_what_to_do(make_model, windows, tmp_path):
    with pytest.raises(InputError, match=r"lower trainer\.learning_rate \(now 1e\+30\)"):
        fit(make_model(), windows, tmp_path, learning_rate=1e30, log_every=1)


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0},
        {"batch_size": 1},
        {"frames": 1},
        {"log_every": 0},
        {"save_every": 0},
        {"save_every": -5},
        {"accumulate": 0},
    ],
    ids=str,
)
def test_impossible_settings_are_errors(settings):
    with pytest.raises(
        InputError, match=r"steps, log_every, save_every, accumulate >= 1 and batch_size, frames >= 2"
    ):
        Trainer(**settings)


@pytest.mark.parametrize("settings", [{"final": 1.5}, {"ema": 1.0}, {"precision": "float16"}], ids=str)
def test_other_impossible_settings_are_errors(settings):
    with pytest.raises(InputError, match=r"final in \[0, 1\], ema in \[0, 1\) and a precision of float32 or bf16"):
        Trainer(**settings)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_step_saves_and_says_so(make_model, windows, tmp_path, number, code):
    """Twice, as launchers pass on what the scheduler has sent already."""
    expected, told = fit(make_model(), windows, tmp_path / "whole"), []

    def send(step, metrics):
        if step == 6:
            os.kill(os.getpid(), number)
            if number == signal.SIGTERM:
                os.kill(os.getpid(), number)

    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(Stopped) as stopped:
        fit(make_model(), windows, tmp_path / "cut", send, tell=told.append)
    assert stopped.value.code == code
    assert told == [f"stopped by {number.name} after step 7; the same command goes on from there"]
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert torch.load(tmp_path / "cut/training_state.pt", weights_only=True)["step"] == 7
    assert_same_weights(fit(make_model(), windows, tmp_path / "cut"), expected)
    assert (tmp_path / "cut/metrics.csv").read_text() == (tmp_path / "whole/metrics.csv").read_text()


def test_a_second_interrupt_does_not_wait(make_model, windows, tmp_path):
    def send(step, metrics):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(make_model(), windows, tmp_path, send)
    finally:
        signal.signal(signal.SIGINT, usual)


def without_batch_statistics(model):
    model.projector[1] = nn.Identity()
    return model


def test_micro_batches_add_up_to_the_batch(make_model, windows, tmp_path):
    """Where nothing is a statistic of the batch. One step: AdamW would blow up rounding after that."""
    runs = []
    for parts in (1, 4):
        options = {"accumulate": parts, "steps": 1, "log_every": 1}
        model = without_batch_statistics(make_model())
        runs.append(fit(model, windows, tmp_path / str(parts), objective=Objective(regulariser="none"), **options))
    for one, other in zip(*(model.state_dict().values() for model in runs), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    assert metrics(tmp_path / "4")[0] == pytest.approx(metrics(tmp_path / "1")[0], rel=1e-4)


def test_the_trained_model_is_the_average_of_its_steps(make_model, windows, tmp_path):
    model, steps = make_model(), []
    average = [model.projector[0].weight.detach().clone()]

    def note(step, _):
        keep = min(0.5, step / (9 + step))
        average.append(keep * average[-1] + (1 - keep) * model.projector[0].weight.detach())
        steps.append(model.projector[1].num_batches_tracked.item())

    fit(model, windows, tmp_path, note, ema=0.5)
    torch.testing.assert_close(model.projector[0].weight, average[-1])
    assert model.projector[1].num_batches_tracked.item() == steps[-1] == 12
    plain = fit(make_model(), windows, tmp_path / "plain")
    assert not torch.equal(plain.projector[0].weight, model.projector[0].weight)
    state = torch.load(tmp_path / "training_state.pt", weights_only=True)
    assert torch.equal(state["model"]["projector.0.weight"], plain.projector[0].weight)


def test_autocast_computes_in_bf16_and_what_is_delicate_in_float32(make_model, windows, tmp_path):
    seen = []

    def spy(encoded):
        seen.append((encoded.predicted_BLD.dtype, encoded.z_BTD.dtype))
        terms = lejepa()(encoded)
        seen.append(terms.regularisation.dtype)
        return terms

    model = make_model()
    fit(model, windows, tmp_path, objective=spy, steps=2, log_every=1, precision="bf16")
    assert seen[1] == torch.float32 and seen[0][1] == torch.float32
    assert all(p.dtype == torch.float32 for p in model.parameters())
    fit(make_model(), windows, tmp_path / "plain", steps=2, log_every=1)
    rough, fine = (metrics(run)[0]["loss"] for run in (tmp_path, tmp_path / "plain"))
    assert rough != fine and rough == pytest.approx(fine, rel=0.03)


def test_what_takes_the_time_is_compiled_and_then_as_it_was(make_model, windows, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda call, **_: compiled.append(call.__self__) or call)
    model = fit(make_model(), windows, tmp_path / "a", compile=True)
    assert compiled == [model.encoder, model.predictor]
    assert model.encoder._compiled_call_impl is None
    assert_same_weights(model, fit(make_model(), windows, tmp_path / "b"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler of torch gives torch's own warnings
def test_a_compiled_run_is_the_same_up_to_rounding(make_model, windows, tmp_path):
    fit(make_model(), windows, tmp_path / "a", compile=True, steps=2, log_every=1)
    fit(make_model(), windows, tmp_path / "b", steps=2, log_every=1)
    for one, other in zip(metrics(tmp_path / "a"), metrics(tmp_path / "b"), strict=True):
        assert one == pytest.approx(other, rel=1e-3)


def test_a_run_says_what_is_wrong_with_it(make_model, windows, tmp_path):
    told = []
    fit(make_model(), windows, tmp_path, tell=told.append, warmup=12)
    assert len(told) == 1 and "lower trainer.warmup" in told[0]
