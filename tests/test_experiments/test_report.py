"""The report: one file, no network, every figure of the summary in it."""

import base64
import io
import json
import re
import shutil

import imageio.v3 as iio
import numpy as np

from experiments.pictures import animation
from experiments.records import read
from experiments.report import report


def test_the_page_is_self_contained_and_complete(tiny_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    page = report(run).read_text()
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "$" not in re.sub(r"data:[^\"]*", "", page).replace("$)", "")
    summary = json.loads((run / "summary.json").read_text())
    low, high = summary["success_final_interval"]
    for text in (
        f"<b>{summary['success_final']:.1%}</b>",
        f"95 % interval {low:.1%} to {high:.1%}",
        summary["protocol"]["pairs_fingerprint"],
        f"p95 {summary['plan_ms_p95']:.1f} ms",
        *(f"{r2:.4f}" for r2 in summary["probe_r2"]),
    ):
        assert text in page
    failed = sum(not line.success_final for line in read(run / "episodes.jsonl") if line.policy == "model")
    assert f"Failures: {failed} of 6" in page
    assert page.count("data:image/svg+xml") == 3
    assert page.count("data:image/gif") == 6


def test_an_animation_shows_the_agent_and_the_goal(tiny_run):
    line = read(tiny_run / "episodes.jsonl")[0]
    data = animation({"name": "two_room"}, line, stride=5, scale=1).partition(",")[2]
    film = iio.imread(io.BytesIO(base64.b64decode(data)), extension=".gif", index=None)
    assert film.shape == (4, 64, 130, 3)

    def centre(image: np.ndarray) -> np.ndarray:
        reddish = (image[..., 0] > 180) & (image[..., 1] < 120)
        return np.argwhere(reddish).mean(0)[::-1] + 0.5

    for frame, state in zip(film, line.states[::5], strict=True):
        np.testing.assert_allclose(centre(frame[:, :64]), state, atol=0.6)
        np.testing.assert_allclose(centre(frame[:, 66:]), line.goal, atol=0.6)


def test_an_evaluation_elsewhere_is_reported_with_its_model(tiny, compose, tiny_run, tmp_path):
    from experiments.evaluate import evaluate

    evaluate(compose("evaluate", f"run={tiny_run}", f"out={tmp_path}/wide", "planner=cem", "planner.samples=16"))
    assert report(tmp_path / "wide").stat().st_size > 10_000
    assert json.loads((tmp_path / "wide/summary.json").read_text())["protocol"]["planner"]["samples"] == 16
