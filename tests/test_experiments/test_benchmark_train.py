"""`lewm benchmark train`: a small run of ours alone, resumption, the floor, the check, the page and its lines."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from experiments.benchmark_train import benchmark_train, page, turns
from experiments.benchmark_train.floor import step_flop
from experiments.benchmark_train.worker import paper, regularisers
from experiments.cells import cells
from experiments.config import compose
from experiments.peers.train_worker import Latents, Steps, without_dropout
from lewm.models import layers
from lewm.types import InputError

RESULTS = Path(__file__).parents[2] / "docs/results/training"
SMALL = ["peer=", "sizes=[16]", "patches=[8]", "batches=[2]", "layers=[1,1]", "threads=[1]", "rounds=2"]
SMALL += ["seconds=0.01", "episodes=4", "batch_small=4", "latents={batch: 8, frames: 2, dim: 6, slices: 32}"]


def problem(**changes):
    return Steps(**{"size": 16, "patch": 8, "batch": 2, "threads": 1, "layers": (1, 1), "folder": ""} | changes)


@pytest.mark.slow
def test_a_small_run_leaves_raw_lines_a_page_and_a_plot(tmp_path):
    places = [f"out={tmp_path / 'out'}", f"run={tmp_path / 'run'}"]
    config = compose("benchmark_train", [*SMALL, *places])
    benchmark_train(config)
    log = tmp_path / "out/training.jsonl"
    names = ["steps at 16 pixels, 1 threads", "regularisers", "frames at 16 pixels"]
    assert [cell["cell"] for cell in cells(log)] == names
    timed = [row for cell in cells(log) for row in cell["rows"] if "seconds" in row]
    assert all(len(row["seconds"]) == 2 and min(row["seconds"]) > 0 for row in timed) and len(timed) == 2 + 10 + 4
    text = (tmp_path / "out/training.md").read_text()
    assert "16 pixels, batch 2, 1 thread" in text and "the CPU default" in text and "_floor:" in text
    assert (tmp_path / "out/training.png").stat().st_size > 10_000

    before = log.read_bytes()  # a rerun measures nothing again
    benchmark_train(config)
    assert log.read_bytes() == before
    with pytest.raises(InputError, match="holds another 'steps at 16 pixels"):  # nor are settings mixed
        benchmark_train(compose("benchmark_train", [*SMALL, *places, "rounds=3"]))


def test_what_cannot_be_measured_is_said(tmp_path):
    config = compose("benchmark_train", [*SMALL, f"out={tmp_path}", f"run={tmp_path}/run"])
    for setting, message in (
        ({"parts": ["speed"]}, "parts are steps, sigreg, frames; got 'speed'"),
        ({"batches": [2, 2]}, "go together"),
        ({"patches": [5]}, "must divide"),
        ({"batches": [1]}, "need batches >= 2"),
        ({"layers": [1]}, "two layers"),
        ({"seconds": 0}, "seconds must be above 0"),
    ):
        with pytest.raises(InputError, match=message):
            benchmark_train({**config, **setting})


def counted(given, monkeypatch):
    """FLOP of the products in a step, as torch counts them."""
    monkeypatch.setattr(layers, "_ONEDNN_LINEAR", None)  # whose products torch's counter does not know
    ours = paper(given)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        ours.step(0)
    return counter.get_total_flops()


def test_the_floor_is_what_torch_counts(monkeypatch):
    """A further layer of each is equal; of the whole, what the floor leaves out is known."""
    of_torch, of_ours = zip(
        *((counted(given, monkeypatch), step_flop(given)) for given in (problem(), problem(layers=(2, 2)))),
        strict=True,
    )
    assert of_ours[1] - of_ours[0] == pytest.approx(of_torch[1] - of_torch[0], rel=1e-9)
    images, tokens, dim = 8, 5, 192
    others = 6 * images * (tokens - 1) * (10 * dim**2 + 2 * tokens * dim)  # of the last block
    actions = 2 * 6 * (2 * 10 * 10 + 3 * (10 * 768 + 768 * 192))  # of six blocks of ten numbers
    assert of_ours[0] <= of_torch[0] <= (of_ours[0] + others + actions) * (1 + 1e-9)


class Says:
    """A worker that answers with one thing."""

    def __init__(self, **answer):
        self.answer, self.hello = answer, {"batch": 4}

    def ask(self, do, kind, **settings):
        return dict(self.answer)


def test_unequal_steps_are_not_timed():
    ours = Says(loss=2.0, prediction=1.0, regularisation=0.5, norm=3.0, seed=1)
    same = Says(loss=2.0, prediction=1.0, regularisation=2.0, norm=3.00003)
    assert turns._check(ours, same)["apart"] == pytest.approx(1e-5, rel=1e-3)
    with pytest.raises(RuntimeError, match="not the same step"):
        turns._check(ours, Says(loss=2.0, prediction=1.0, regularisation=2.0, norm=3.001))


def test_what_is_timed_is_a_step_that_learns():
    ours = paper(problem())
    first = ours.check()
    assert ours.check() == first  # it changes nothing, and drops nothing
    for t in range(3):
        ours.step(t)
    assert ours.check()["loss"] < first["loss"]


def test_without_dropout_a_copy_is_deterministic():
    model = paper(problem())._model
    z, actions = torch.randn(2, 3, 192), torch.randn(2, 3, 10)
    with torch.no_grad():
        for block in model.predictor.blocks:
            block.modulation.bias.fill_(1.0)  # gates are closed at the start
        copy = without_dropout(model)
        assert torch.equal(copy.predictor(z, actions), copy.predictor(z, actions))
        assert not torch.equal(model.predictor(z, actions), model.predictor(z, actions))


def test_pictures_of_a_batch_differ_and_come_again():
    pixels, actions = problem(size=18).windows()
    assert pixels.shape == (2, 4, 18, 18, 3) and pixels.dtype == np.uint8 and actions.shape == (2, 4, 10)
    assert len(np.unique(pixels.reshape(8, -1), axis=0)) == 8
    assert np.array_equal(pixels, problem(size=18).windows()[0])


def test_regularisers_are_times_the_batch_as_published():
    """Collapsed latents have EP = 0.4020 N on the knots, sqrt(2 pi) (1 - sqrt 2 + 1 / sqrt 3) N as an integral."""
    found = regularisers(Latents(batch=8, frames=2, dim=6, slices=32))
    for kind, measure in found.kinds.items():
        per_sample = 0.40892 if kind in ("kummer", "imq") else 0.4020
        assert measure(torch.zeros(8, 2, 6), 0).item() == pytest.approx(8 * per_sample, rel=1e-3), kind


def timed(side, what, heap, kind, seconds, frames=64):
    row = {"side": side, "what": what, "heap": heap, "kind": kind, "versions": {"x": "1"}, "first": 0.25}
    return {**row, "seconds": [seconds / 2, seconds, 2 * seconds], "frames": frames, "peak_mb": 1234.5}


def log(folder, theirs):
    """A log in which theirs takes 3 s and 2.4 s a step, ours 2 and 1.2; SIGReg 300 and 100 ms, ours 60 and 25."""
    pairs = [("peer", (3.0, 2.4), (0.3, 0.1)), ("lewm", (2.0, 1.2), (0.06, 0.025))]
    steps, sigreg, frames = [], [], []
    for side, step, slices in pairs[0 if theirs else 1 :]:
        for k, heap in enumerate(turns.HEAPS):
            steps.append(timed(side, "steps", heap, "step", step[k]))
            sigreg.append(timed(side, "sigreg", heap, "sigreg", slices[k], 512))
            frames.append(timed(side, "steps", heap, "step", step[k]))
    for k, heap in enumerate(turns.HEAPS):
        sigreg += [timed("lewm", "sigreg", heap, kind, 0.004, 512) for kind in ("kummer", "imq")]
        frames.append(timed("lewm", "small", heap, "step", (0.1, 0.08)[k], 256))
    steps.append({"kind": "check", "apart": 2e-7} if theirs else {"kind": "check"})
    steps.append({"kind": "floor", "flop": 1e11, "gflops": [{"torch": 90.0, "oneDNN": 200.0}] * 3})
    cosines = {"sigreg": 0.9, "kummer": 0.99, "reference": 1.0} | ({"theirs": 0.901} if theirs else {})
    apart = {"value_apart": 1e-7, "gradient_apart": 2e-6} if theirs else {}
    sigreg += [{"kind": "compared", "near": near, "cosines": cosines, **apart} for near in (False, True)]
    settings = {"size": 64, "patch": 8, "batch": 16, "threads": 1, "layers": [12, 6]}
    found = [
        {"cell": "steps at 64 pixels, 1 threads", "settings": settings, "rows": steps},
        {"cell": "regularisers", "settings": dict(batch=128, frames=4, dim=192, slices=1024), "rows": sigreg},
        {"cell": "frames at 64 pixels", "settings": {**settings, "batch_small": 64}, "rows": frames},
    ]
    (folder / "training.jsonl").write_text("".join(json.dumps(one) + "\n" for one in found))


def test_the_page_says_what_its_lines_say(tmp_path):
    log(tmp_path, theirs=True)
    page.write(tmp_path)
    text = (tmp_path / "training.md").read_text()
    for line in (
        "| 64 pixels, batch 16, 1 thread: never slower | 1.50 and 2.00 times faster | met |",
        "| SIGReg, 1024 directions: 3 times faster, memory kept | 4.0 times | met |",
        "| exact, Kummer: 20 times faster, memory kept | 25.0 times | met |",
        # 256 frames in 0.1 s against 64 in 2 s, and in 0.08 against 1.2: the smaller ratio counts
        "| CPU default: 50 times the frames of the ViT of **lewm** | 60 times | met |",
        "| **lewm**, memory kept | 1.20 (0.60 to 2.40) | 2.00 | 2.40 | 1,234 |",
        "| _floor: 100 GFLOP at 200 GFLOP/s_ | 0.50 |  | 1 |  |",
        "| **lewm**: SIGReg, 1024 directions | 250 | 60.0 (30.0 to 120.0) | 5.0 | 25.0 (12.5 to 50.0) | 4.0 |",
        "| stable-worldmodel, 1024 directions | 0.901 | 0.901 |",
        "| stable-worldmodel, the paper's ViT | 21 | 120 | 27 | 120 |",
    ):
        assert line in text, line
    assert "differ by 2e-07 at most" in text and "gradients by 2e-06 of the largest" in text
    assert (tmp_path / "training.png").stat().st_size > 10_000


def test_a_page_of_ours_alone_claims_nothing_of_theirs(tmp_path):
    log(tmp_path, theirs=False)
    page.write(tmp_path)
    text = (tmp_path / "training.md").read_text()
    assert "never slower" not in text and "| stable-worldmodel" not in text and "(not measured here)" in text
    assert "| CPU default: 50 times the frames of the ViT of **lewm** | 60 times | met |" in text


def test_the_published_page_is_made_of_the_published_lines(tmp_path):
    for name in ("training.jsonl", "training.md"):
        (tmp_path / name).write_bytes((RESULTS / name).read_bytes())
    page.write(tmp_path)
    assert (tmp_path / "training.md").read_text() == (RESULTS / "training.md").read_text()
