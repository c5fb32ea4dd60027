"""The report: one file, no network, the numbers of the summary, films that show what was recorded and imagined."""

import base64
import html
import io
import json
import os
import re
import shutil
import signal
import subprocess
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue
from string import Template
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import planners
from envs import TwoRoom
from experiments.evaluate.agents import Overheard
from experiments.pictures import coordinates
from experiments.records import append, read
from experiments.report import report
from experiments.report.evaluation import labels
from experiments.report.films import Film, make_film, png
from experiments.report.replay import Bank, Rollout, Watched
from lewm.types import InputError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
ANOTHER_WAY = "another way than recorded"


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    """A copy of the tiny run with its page."""
    folder = tmp_path_factory.mktemp("report") / "run"
    shutil.copytree(tiny_run, folder, ignore=shutil.ignore_patterns("data"))
    report(folder)
    return folder


@pytest.fixture(scope="module")
def page(run):
    return (run / "report.html").read_text()


def films(page: str) -> list[tuple[dict, np.ndarray, str]]:
    """What the player is told, the sheet, and the caption of every film of a page."""
    found = re.findall(r'data-film="([^"]*)".*?href="data:image/png;base64,([^"]*)".*?<figcaption>(.*?)</', page)
    return [(json.loads(html.unescape(told)), decoded(data), caption) for told, data, caption in found]


def decoded(data: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def cell(sheet: np.ndarray, told: dict, number: int) -> np.ndarray:
    y, x = number // told["columns"] * told["height"], number % told["columns"] * told["width"]
    return sheet[y : y + told["height"], x : x + told["width"]]


def test_the_page_needs_no_network(page):
    assert not re.search(r'(src|href)="(?!data:|#)', page) and "@import" not in page
    assert "default-src 'none'; img-src data:" in page
    assert set(re.findall(r"https?://[\w./]+", page)) <= {
        "http://www.w3.org/1999/xlink",
        "http://www.w3.org/2000/svg",
    }
    assert "$" not in re.sub(r"<script>.*?</script>|data:[^\"]*|<details>.*?</details>", "", page, flags=re.DOTALL)


def test_the_page_says_what_the_summary_says(run, page):
    summary = json.loads((run / "summary.json").read_text())
    shown = dict(re.findall(r'data-key="(\w+)">([\d.]+%|–)<', page))
    keys = [
        f"{own}{when}" for own in ("success", "detour", "random", "random_detour", "greedy") for when in ("_final",)
    ]
    assert set(keys) | {"success_ever", "random_ever"} <= set(shown)
    for key, text in shown.items():
        assert text == f"{summary[key]:.1%}"
        low, high = summary[f"{key}_interval"]
        assert f'data-key="{key}">{text}</span> <small>{low:.1%} to {high:.1%}</small>' in page
    recorded = (summary["protocol"]["pairs_fingerprint"], summary["protocol"]["checkpoint"], summary["machine"])
    times = (f"{summary['plan_ms_p50']:.1f} ms", f"{summary['plan_ms_p95']:.1f} ms")
    for text in (*recorded, *times, *(f"{r2:.4f}" for r2 in summary["probe_r2"])):
        assert html.escape(text) in page
    failed = sum(not line.success_final for line in read(run / "episodes.jsonl") if line.policy == "model")
    assert f"Failures: {failed} of 6" in page and f"Solved: {6 - failed} of 6" in page
    assert page.count('role="img"') == 3 + 3 + 6  # curves, maps, films


def test_films_show_the_recorded_states_and_the_worst_failure_first(run, page):
    lines = {line.pair: line for line in read(run / "episodes.jsonl") if line.policy == "model"}
    task, missed = TwoRoom(1), []
    assert ANOTHER_WAY not in page
    for told, sheet, caption in films(page):
        line = lines[int(re.match(r"pair (\d+)", caption)[1])]
        assert told["steps"] == list(range(16))
        for number, image in zip(told["agent"], task.draw(np.array(line.states)), strict=True):
            np.testing.assert_array_equal(cell(sheet, told, number), image)
        goal = task.draw(np.array([line.goal]))[0]
        np.testing.assert_array_equal(cell(sheet, told, told["goal"]), goal)
        assert told["imagined"] == [told["imagined"][t - t % 5] for t in range(16)]  # a plan every five steps
        if not line.success_final:
            missed.append(float(np.linalg.norm(np.subtract(line.states[-1], line.goal))))
            assert f"{missed[-1] / 4.48:.2f} tolerances away at the end" in page
    assert missed == sorted(missed, reverse=True)


def test_two_runs_share_a_page_that_knows_no_detours_where_there_are_none(run, tmp_path):
    """The second is evaluated elsewhere, and did not go as it does now."""
    for name, shift in (("first", 0.0), ("second", 0.5)):
        folder = tmp_path / name
        folder.mkdir()
        summary = json.loads((run / "summary.json").read_text())
        cleared = {key: 0 if key == "n_detour" else None for key in summary if "detour" in key}
        protocol = {**summary["protocol"], "checkpoint": name}
        summary |= {**cleared, "run": f"../{run.name}", "protocol": protocol}
        (folder / "summary.json").write_text(json.dumps(summary))
        for line in read(run / "episodes.jsonl"):
            states = [*line.states[:-1], [x + shift for x in line.states[-1]]]
            append(folder / "episodes.jsonl", [type(line)(**{**vars(line), "detour": False, "states": states})])
    (tmp_path / run.name).symlink_to(run)
    (tmp_path / "second/audit.json").write_text('{"verdict": "Mend the <predictor> first."}')
    page = report([tmp_path / "first", tmp_path / "second"], page=tmp_path / "both.html").read_text()
    first, second = page.split('<section class="run">')[1:]
    for section, says in ((first, False), (second, True)):
        assert (ANOTHER_WAY in section) == says
        assert ("Mend the &lt;predictor&gt; first." in section) == says
    seen = re.sub(r"<details>.*?</details>|<style>.*?</style>", "", page, flags=re.DOTALL)
    assert not re.search(r"detour|wall|blocked", seen)
    assert seen.count('scope="rowgroup"') == 2 and "A <b>first</b>, B <b>second</b>: final" in seen


def test_several_folders_have_different_names(tmp_path):
    a, b = tmp_path / "x/run", tmp_path / "y/run"
    assert labels([a]) == ["run"]
    assert labels([a, b]) == ["x/run", "y/run"]
    assert labels([a, a / "wide"]) == ["run", "wide"]
    with pytest.raises(InputError, match="named twice"):
        labels([a, tmp_path / "x/../x/run"])


def test_an_older_evaluation_is_refused(run, tmp_path):
    shutil.copytree(run, tmp_path / "old")
    summary = json.loads((tmp_path / "old/summary.json").read_text())
    del summary["protocol"]["agents"]
    (tmp_path / "old/summary.json").write_text(json.dumps(summary))
    with pytest.raises(InputError, match="by an older version; evaluate into another folder"):
        report(tmp_path / "old")


# Its parts


def test_plans_end_where_their_actions_lead():
    spec = planners.Limits(low=np.full(2, -1.0), high=np.full(2, 1.0), std=np.full(2, 0.5))
    dynamics = planners.from_step(lambda state, action: state + action, spec)
    watched = Watched(None)
    planner = Overheard(planners.CEM(horizon=4, samples=8, iterations=2, elites=2))
    agent = planners.MPC(dynamics, np.array([[3.0, 0.0], [0.0, 3.0]]), rows=2, planner=planner, replan_every=2)
    state = np.zeros((2, 2))
    for t in range(4):
        before = state.copy()
        state = state + agent.act(state)
        if t % 2 == 0:
            watched.decided(t, None, agent, 0.0)
            expected = before + agent.last_plan.actions.sum(1).numpy()
            np.testing.assert_allclose(watched.ends[-1].numpy(), expected, atol=1e-6)
    assert watched.planned == [0, 2]


def test_a_latent_is_shown_by_the_nearest_of_the_bank():
    bank = Bank(np.zeros((3, 2)), torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]]))
    index, far = bank.nearest(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    assert index.tolist() == [1, 2] and far.tolist() == [1.0, 0.0]


def test_a_film_shows_the_plan_of_the_moment(run):
    task = TwoRoom(1)
    record = next(line for line in read(run / "episodes.jsonl") if line.policy == "model")
    bank = Bank(np.array([[10.0, 10.0], [50.0, 10.0], [10.0, 50.0]]), torch.eye(3))
    film = make_film(task, Rollout(record, True, np.array([0, 5, 11]), 0.9 * torch.eye(3)[[2, 0, 1]]), bank)
    planned = [2] * 5 + [0] * 6 + [1] * 5
    np.testing.assert_array_equal(film.pictures[film.imagined], task.draw(bank.states[planned]))


@pytest.mark.parametrize("colours", [3, 300])
def test_a_sheet_loses_nothing(colours):
    pictures = (
        np.random.default_rng(0)
        .integers(0, 256, (colours, 3))[np.random.default_rng(1).integers(0, colours, (5, 8, 4000))]
        .astype(np.uint8)
    )
    film = Film(pictures, [0], [0], [1], 2)
    assert film.columns == 2
    sheet = decoded(png(film.sheet()).partition(",")[2])
    told = film.instructions()
    for number, picture in enumerate(pictures):
        np.testing.assert_array_equal(cell(sheet, told, number), picture)


def test_sines_and_cosines_are_shown_as_angles():
    rng = np.random.default_rng(0)
    x, (a, b) = rng.normal(size=50), rng.uniform(-np.pi, np.pi, (2, 50))
    pose = np.column_stack([x, np.sin(a), np.sin(b), np.cos(a), np.cos(b), np.ones(50)])
    found = coordinates(SimpleNamespace(sense=lambda states: {"pose": pose}), np.zeros((50, 9)))
    assert [(one.name, one.angle) for one in found] == [
        ("pose[0]", False), ("angle of pose[1, 3]", True), ("angle of pose[2, 4]", True)
    ]  # fmt: skip
    for one, values in zip(found, (x, a, b), strict=True):
        np.testing.assert_allclose(one.values, values)
    plain = coordinates(SimpleNamespace(sense=lambda states: {}), pose[:, [0, 5]])
    assert [one.name for one in plain] == ["state[0]"]


# In a real browser, without a window


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None and not os.environ.get("CI"):
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    assert path, f"CI needs a browser: one of {', '.join(BROWSERS)}"
    return path


def seen(browser: str, page: str, folder: Path, *flags: str) -> dict:
    """What a browser makes of a page in the frames of `report_frames.html`, which sends it back when all is seen.

    In real time: a virtual clock (`--virtual-time-budget`) may run out before the first picture is drawn.
    """
    scriptless = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    frames = Template(Path(__file__).with_name("report_frames.html").read_text())
    wrapper = frames.substitute(page=html.escape(page), scriptless=html.escape(scriptless)).encode()
    found: Queue[bytes] = Queue()

    class Exchange(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(wrapper)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(b"")
            found.put(body)

        def answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    asked = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=2040,6000"]
    alone = ["--no-first-run", "--no-proxy-server", "--disable-background-networking", "--disable-extensions"]
    log = folder / "browser.log"
    with ThreadingHTTPServer(("127.0.0.1", 0), Exchange) as server, log.open("wb") as output:
        Thread(target=server.serve_forever, daemon=True).start()
        command = [browser, *asked, *alone, f"--user-data-dir={folder}/profile", *flags]
        command += [f"http://127.0.0.1:{server.server_port}/"]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            for _ in range(180):  # seconds; the page itself waits for at most 90
                with suppress(Empty):
                    return json.loads(found.get(timeout=1))
                if process.poll() is not None:
                    break
            pytest.fail(f"the browser said nothing: {log.read_text()[-2000:]}")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with its children; nothing of the profile is kept
            process.wait()
            server.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("calm", [False, True])
def test_the_page_in_a_browser(browser, run, page, tmp_path, calm):
    """At the fourth frame of every film, after it played, or did not for who asked for less motion."""
    summary = json.loads((run / "summary.json").read_text())
    found = seen(browser, page, tmp_path, *(["--force-prefers-reduced-motion"] if calm else []))
    assert found["calm"] == calm
    shown = films(page)
    assert len(shown) == 6
    expected = [
        [int(cell(sheet, told, number).sum()) for number in (told["agent"][3], told["imagined"][3], told["goal"])]
        for told, sheet, _ in shown
    ]
    for name, width, scripts in (("phone", 360, True), ("desktop", 1280, True), ("scriptless", 360, False)):
        view = found[name]
        assert view["width"] == width and view["needed"] <= width
        assert view["requests"] == [] and view["unnamed"] == 0
        assert len(view["rates"]) > 5 and all(text == f"{summary[key]:.1%}" for key, text in view["rates"])
        assert view["heads"] == [width > 640]
        assert view["strips"] == [not scripts] * 6
        if scripts:
            assert view["played"] == [0 if calm else 15] * 6 and view["buttons"] == ["Play"] * 6
            assert view["steps"] == ["step 3"] * 6
            assert view["drawn"] == expected
