"""`lewm benchmark envs`: a small run of ours alone, resumption, the clock, and the page against its raw lines."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmark_envs import page, turns
from experiments.benchmark_envs.worker import Ours
from experiments.cells import cells
from experiments.collect import collect
from experiments.config import compose
from experiments.peers import envs_worker as peers
from experiments.workers import Worker
from lewm.data import EpisodeReader

RESULTS = Path(__file__).parents[2] / "docs/results/envs"


class Clock:
    """Time that passes only where it is told to."""

    now = 0.0

    def perf_counter(self):
        return self.now

    def pass_(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(peers, "time", clock)
    return clock


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_a_small_run_leaves_raw_lines_a_page_and_a_plot(lewm, tmp_path):
    small = ["benchmark", "envs", "peer=", "parts=[frames]", "tasks=[two_room]", "sizes=[24]", "rounds=2"]
    small += ["seconds=0.01", "collect_seconds=0.02", f"out={tmp_path / 'out'}", f"run={tmp_path / 'run'}"]
    code, _, err = lewm(*small)
    assert code == 0, err
    log = tmp_path / "out/envs.jsonl"
    (cell,) = cells(log)
    rows = {row["kind"]: row for row in cell["rows"]}
    assert cell["cell"] == "two_room at 24 pixels"
    assert set(rows) == {"step_render", "one_row", "step", "render", "compress", "floor", "collect"}
    assert all(len(row["frames_per_second"]) == 2 and min(row["frames_per_second"]) > 0 for row in rows.values())
    speed = {kind: np.median(row["frames_per_second"]) for kind, row in rows.items()}
    assert speed["step"] > speed["step_render"] > speed["collect"]
    assert 10 < rows["collect"]["bytes_per_frame"] < 24 * 24 * 3
    text = (tmp_path / "out/envs.md").read_text()
    assert "## Two-Room, 24 pixels" in text and "lewm, one row" in text and "Where the time goes" in text
    assert (tmp_path / "out/envs.png").stat().st_size > 10_000

    before = log.read_bytes()  # a rerun measures nothing again
    assert lewm(*small)[0] == 0
    assert log.read_bytes() == before
    code, _, err = lewm(*small, "rounds=3")  # and other settings are not mixed in
    assert code == 2 and "holds another 'two_room at 24 pixels'" in err


@pytest.mark.slow
def test_what_cannot_be_measured_is_one_line(lewm, tmp_path):
    def fails(*settings):
        code, _, err = lewm("benchmark", "envs", "peer=", f"out={tmp_path}", f"run={tmp_path}/run", *settings)
        assert code == 2
        return err

    assert fails("parts=[speed]") == "error: parts are frames, workers; got 'speed'\n"
    assert fails("tasks=[wall]") == "error: tasks are two_room, push_t, reacher; got 'wall'\n"
    assert "must name one at least" in fails("sizes=[]")
    assert "seconds must be above 0" in fails("seconds=0")
    code, out, _ = lewm("benchmark", "envs", "--help")
    assert code == 0 and out.startswith("lewm benchmark envs:") and "sizes: [64, 224]" in out


def test_only_steps_are_on_the_clock(clock):
    resets, steps = [], []

    def reset(episode):
        resets.append(episode)
        clock.pass_(100)

    def step(t):
        steps.append(t)
        clock.pass_(0.25)

    found = peers.Loop(reset, step, frames=7).turn(40)  # 160 steps: one episode of 100, and 60 of the next
    assert found == {"frames": 160 * 7, "seconds": 40} and resets == [0, 1]
    assert steps == [*range(100), *range(60)]


def test_a_collection_takes_about_as_long_as_asked(clock, tmp_path):
    taken = []

    def record(folder, episodes):
        assert not list(folder.iterdir())  # a new place each time
        clock.pass_(0.1 * episodes + (5 if not taken else 0))  # the first time takes longer, once
        (folder / "data").write_bytes(bytes(10 * episodes))
        taken.append(episodes)

    one = peers.Collection(record, lambda folder: (folder / "data").stat().st_size // 10 * 101, tmp_path / "c")
    one.warm(2)
    found = one.turn(2)
    assert found == {"frames": 2020, "seconds": pytest.approx(2), "episodes": 20, "bytes": 200}
    assert one.turn(2, episodes=3)["frames"] == 303 and not (tmp_path / "c").exists()


def test_what_is_timed_is_what_collect_records(tmp_path):
    """Episode for episode the same data, so it is a fair stand-in for one worker of `lewm collect`."""
    (tmp_path / "timed").mkdir()
    ours = Ours("two_room", 24, tmp_path)
    ours.rows = 3  # two batches
    ours._record(tmp_path / "timed", 5)
    settings = [
        "env=two_room",
        "env.image_size=24",
        "policy=uniform_hold",
        "policy.hold=1",
        "episodes=5",
        "steps=100",
    ]
    collect(compose("collect", [*settings, f"out={tmp_path / 'set'}"]))
    assert EpisodeReader(tmp_path / "timed").fingerprint == EpisodeReader(tmp_path / "set").fingerprint


def test_a_worker_says_what_cannot_be_done_here():
    good, bad = "Loop(lambda e: None, print, 1)", "Loop(lambda e: None, lambda t: 1 / 0, 1)"
    code = "from experiments.peers.envs_worker import Loop, serve; "
    code += f"serve({{'good': {good}, 'bad': {bad}}}, {{'rows': 1}})"
    with Worker("test", [sys.executable, "-c", code]) as worker:
        assert worker.hello == {"kinds": ["good", "bad"], "rows": 1}
        assert worker.ask("warm", kind="bad", seconds=0.01) == {"error": "ZeroDivisionError: division by zero"}
        assert worker.ask("turn", kind="good", seconds=0.01)["frames"] > 0  # what it prints is no answer
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            worker.ask("turn", kind="bad", seconds=0.01)


def cell(task, size, speeds, **settings):
    """A cell of the log with these frames per second by side and kind; a text in their place is an error."""
    rows = []
    for (side, kind), speed in speeds.items():
        row = {"side": side, "kind": kind, "rows": 16, "versions": {"x": "1"}, "rendering": {"backend": "numpy"}}
        row |= {"error": speed} if isinstance(speed, str) else {"bytes_per_frame": 1234}
        rows.append({**row, "frames_per_second": [] if isinstance(speed, str) else [0.5 * speed, speed, 2 * speed]})
    return {"cell": f"{task} at {size} pixels", "settings": {"task": task, "size": size, **settings}, "rows": rows}


def ours(size):
    """A task whose step takes 100 us, a picture 20 us and 10 ns for each pixel, compressing 30, the rest 20."""
    draw = 20 + 0.01 * size**2
    times = {
        "step": 100,
        "render": draw,
        "step_render": 100 + draw,
        "one_row": 500,
        "floor": 1,
        "compress": 30,
        "collect": 150 + draw,
    }
    return {("lewm", kind): 1e6 / us for kind, us in times.items()}


def test_the_page_says_what_its_lines_say(tmp_path):
    theirs = {("peer", "step_render"): 400.0, ("peer", "hdf5"): 300.0, ("peer", "lance"): 250.0}
    broken = theirs | {("peer", "lance"): "RuntimeError: no context <an.Object at 0x7f> here"}
    found = [cell("push_t", 64, ours(64) | theirs), cell("push_t", 224, ours(224) | broken)]
    run = {"steps": 100, "rendering": {}, "episodes": [16, 216], "workers": 1}
    workers = [{**run, "seconds": [[3.0, 23.0], [3.2, 23.0]]}, {**run, "workers": 2, "seconds": [[4.0, 15.0]]}]
    found.append(
        {"cell": "workers of push_t", "settings": {"task": "push_t", "size": 64, "repeats": 2}, "rows": workers}
    )
    (tmp_path / "envs.jsonl").write_text("".join(json.dumps(one) + "\n" for one in found))
    page.write(tmp_path)
    text = (tmp_path / "envs.md").read_text()
    step64, collect64 = 1e6 / 160.96, 1e6 / 210.96
    assert (
        f"| Push-T, 64 pixels | 3 times | {step64 / 400:.1f} times, met | {collect64 / 250:.1f} times, met |"
        in text
    )
    assert "| Push-T, 224 pixels | 3 times | 4.0 times, met | 5.0 times, met |" in text  # HDF5, as Lance fails
    assert "fails: `RuntimeError: no context ... here`" in text
    assert (
        f"| **lewm**, 16 rows | {step64:,.0f} ({step64 / 2:,.0f} to {2 * step64:,.0f}) | {step64 / 400:.1f} |"
        in text
    )
    assert "| Push-T, 64 pixels | 100.0 us | 61.0 us | 30.0 us | 20.0 us | 211.0 us |" in text
    assert "a picture costs 20 us and 10.00 ns for each pixel" in text
    assert "a step is 10 physics steps, 10.0 us each" in text
    # 200 further episodes of 101 frames in 19.9 and 11 seconds
    assert "| Push-T | 16: 3.1 and 4.0 s | 216: 23.0 and 15.0 s | 1.53 | 1,015 and 1,836 frames/s | 1.81 |" in text
    assert "| Push-T, a second worker | 1.7 times |  | 1.81 times, met |" in text


def test_the_published_page_is_made_of_the_published_lines(tmp_path):
    for name in ("envs.jsonl", "envs.md"):
        (tmp_path / name).write_bytes((RESULTS / name).read_bytes())
    page.write(tmp_path)
    assert (tmp_path / "envs.md").read_text() == (RESULTS / "envs.md").read_text()


@pytest.mark.parametrize("broken", ["step", "step_render", "collect", "all"])
def test_a_page_is_made_of_what_could_be_measured(tmp_path, broken):
    theirs = {("peer", "step_render"): 400.0, ("peer", "hdf5"): 300.0}
    speeds = {key: "no GL here" if broken in (key[1], "all") else speed for key, speed in ours(64).items()}
    found = cell("push_t", 64, speeds | (theirs if broken != "all" else {}))
    (tmp_path / "envs.jsonl").write_text(json.dumps(found) + "\n")
    page.write(tmp_path)
    text = (tmp_path / "envs.md").read_text()
    assert text.count("fails: `no GL here`") == (len(speeds) if broken == "all" else 1)
    assert "Where the time goes" not in text or broken == "step_render"
    assert (", met" in text) == (broken in ("step", "step_render", "collect"))
    assert (tmp_path / "envs.png").stat().st_size > 0


@pytest.mark.slow
def test_whole_collections_by_workers(tmp_path):
    rows = turns.by_workers("push_t", 24, tmp_path, repeats=1, seconds=0.5)
    assert [row["workers"] for row in rows] == [1, 2]
    for row in rows:
        (few, many), ((short, long),) = row["episodes"], row["seconds"]
        assert 0 < few < many and min(short, long) > 0
