"""`lewm benchmark data`: a small run of ours alone, resumption, and a page that agrees with its raw lines."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmark_data import crash, page, process, scale, sets, turns
from experiments.benchmark_data import worker as ours
from experiments.peers import data_worker as peers
from lewm.data import EpisodeReader

RESULTS = Path(__file__).parents[2] / "docs/results/data"
FEW = ["lewm", "lewm_ram", "lewm_raw", "floor_zstd", "floor_copy"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A set of six episodes of 30 steps at 16 pixels, in our kinds."""
    folder = tmp_path_factory.mktemp("sets") / "small"
    sets.make(folder, size=16, episodes=6, steps=30, stores=FEW, peer=None)
    return folder


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The verb with few stores, tiny sets and short turns, in tmp_path."""
    monkeypatch.setattr(sets, "STORES", {name: ours.STORES[name] for name in FEW})
    return [
        "benchmark",
        "data",
        "peer=",
        "sizes=[16]",
        "episodes=[12]",
        "steps=30",
        "rounds=2",
        "seconds=0.01",
        "openings=1",
        "kill_at=[10]",
        "index=[50]",
        f"out={tmp_path / 'out'}",
        f"run={tmp_path / 'run'}",
    ]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_a_small_run_leaves_raw_lines_a_page_and_a_plot(small, lewm, tmp_path):
    code, _, err = lewm(*small)
    assert code == 0, err
    found = {cell["cell"]: cell["rows"] for cell in page.cells(tmp_path / "out/data.jsonl")}
    assert set(found) == {"windows at 16 pixels", "crash", "index"}
    rows = {row["store"]: row for row in found["windows at 16 pixels"]}
    assert set(rows) == set(FEW)
    assert all(len(row["windows_per_second"]) == 2 and min(row["windows_per_second"]) > 0 for row in rows.values())
    checked = [rows[name] for name in FEW if name not in turns.UNCHECKED]
    assert all(row["max_error"] == row["actions_error"] == 0 for row in checked)
    assert rows["lewm"]["bytes_per_frame"] < rows["lewm_raw"]["bytes_per_frame"]
    (killed,) = found["crash"]
    assert killed["readable"] % ours.GROUP == 0 and 0 <= killed["taken"] - killed["readable"] < 2 * ours.GROUP
    (index,) = found["index"]
    assert index["windows"] == 50 * 11 and index["windows_bytes"] == 50 * 12
    text = (tmp_path / "out/data.md").read_text()
    assert "zstd alone" in text and "Killed while writing" in text and "As a set grows" in text
    assert (tmp_path / "out/data.png").stat().st_size > 10_000

    before = (tmp_path / "out/data.jsonl").read_bytes()  # a rerun measures nothing again ...
    assert lewm(*small)[0] == 0
    assert (tmp_path / "out/data.jsonl").read_bytes() == before
    kept = [line for line in lines(tmp_path / "out/data.jsonl") if line.get("cell") != "crash"]
    torn = "".join(json.dumps(line) + "\n" for line in kept) + '{"cell": "cra'  # ... but what is missing or torn
    (tmp_path / "out/data.jsonl").write_text(torn)
    assert lewm(*small)[0] == 0
    again = lines(tmp_path / "out/data.jsonl")
    assert again[: len(kept)] == kept and [line.get("cell") for line in again[len(kept) :]] == [None, "crash"]

    code, _, err = lewm(*small, "rounds=3")  # and other settings are not mixed in
    assert code == 2 and "holds another 'windows at 16 pixels'" in err


@pytest.mark.slow
def test_what_cannot_be_measured_is_one_line(lewm, tmp_path):
    def fails(*settings):
        code, _, err = lewm("benchmark", "data", "peer=", f"out={tmp_path}", f"run={tmp_path}/run", *settings)
        assert code == 2
        return err

    assert fails("parts=[speed]") == "error: parts are windows, crash, index; got 'speed'\n"
    assert "one number for each of sizes" in fails("sizes=[64]")
    assert "kill_at=[25, 55] needs" in fails("episodes=[10,10]")
    assert "steps must be at least 20" in fails("steps=19")
    code, out, _ = lewm("benchmark", "data", "--help")
    assert code == 0 and out.startswith("lewm benchmark data:") and "sizes: [64, 224]" in out


def test_the_windows_read_are_the_ones_recorded(folder):
    """Every store of ours against rows of the raw files, by another way than the reader's."""
    windows = peers.Windows.load(folder)
    raw = np.fromfile(folder / "raw/shards/w0000-0/pixels.bin", np.uint8).reshape(6, 31, 16, 16, 3)
    actions = np.fromfile(folder / "raw/shards/w0000-0/action.bin", "<f4").reshape(6, 31, 2)
    assert windows.per_episode == 31 - 20 + 1 and windows.starts.max() == 30 - 20
    which, starts = windows.episodes[:7], windows.starts[:7]
    for name in ("lewm", "lewm_ram", "lewm_raw"):
        store = ours.STORES[name]
        frames, acts = store.prepare()(folder / store.path, windows)(which, starts)
        for k, (e, s) in enumerate(zip(which, starts, strict=True)):
            assert (frames[k] == raw[e, [s, s + 5, s + 10, s + 15]]).all()
            assert (acts[k].reshape(20, 2) == actions[e, s : s + 20]).all()


@pytest.mark.skipif("mp4_h264" not in ours.STORES, reason="needs av")
def test_mp4_gives_the_frame_asked_for(tmp_path):
    """Frames whose brightness is their number: seeking lands on each, though the codec is lossy."""
    from experiments.benchmark_data.mp4 import prepare_mp4, write_mp4

    level = 20 * np.arange(12, dtype=np.uint8)
    images = np.broadcast_to(level[:, None, None, None], (12, 32, 32, 3))
    episodes = [{"pixels": list(images[:6]), "action": list(np.zeros((6, 2)))}]
    episodes.append({"pixels": list(images[6:]), "action": list(np.ones((6, 2)))})
    write_mp4(tmp_path, iter(episodes), "libx264")
    windows = peers.Windows(2, 2, 3, 6, np.array([1, 0, 1]), np.array([1, 2, 0]))
    frames, actions = prepare_mp4()(tmp_path, windows)(windows.episodes, windows.starts)
    assert np.abs(frames.mean((2, 3, 4)) - [[140, 180], [40, 80], [120, 160]]).max() < 8
    assert (actions == windows.episodes[:, None, None]).all() and actions.shape == (3, 2, 4)


def test_a_wrong_frame_is_seen(folder, tmp_path):
    """The check against the truth would notice a store that gives neighbouring frames."""
    windows = peers.Windows.load(folder)
    shutil.copy(folder / "truth.npz", tmp_path)
    right = ours.STORES["lewm_raw"].prepare()(folder / "raw", windows)
    for shift, expected in ((0, False), (1, True)):

        def open_store(path, windows, shift=shift):
            return lambda episodes, starts: right(episodes, np.minimum(starts + shift, 10))

        server = peers._Server(open_store, folder / "raw", tmp_path, windows)
        server.open()
        found = server.check()
        assert (found["max_error"] > 0) == expected and (found["actions_error"] > 0) == expected


def test_a_killed_writer_is_really_killed(folder, tmp_path):
    command = [*process.command("lewm", None), "write", "lewm", str(folder / "raw"), str(tmp_path / "set")]
    with pytest.raises(RuntimeError, match="before it could be killed"):
        crash._killed(command, 100)
    assert len(EpisodeReader(tmp_path / "set")) == 6  # it ended well: all are there
    sleeper = [sys.executable, "-c", "import time; print(3, flush=True); time.sleep(100)"]
    assert crash._killed(sleeper, 3) == 3
    done = subprocess.run([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
    assert done.returncode == -signal.SIGKILL


def test_a_failing_worker_says_why(folder):
    with process.serve("lewm", folder, None) as worker, pytest.raises(RuntimeError) as error:
        worker.ask("memory", batches=1)  # before anything is open
    assert "worker of 'lewm' failed" in str(error.value) and "AttributeError" in str(error.value)


def test_synthetic_sets_read_the_real_rows(folder, tmp_path, monkeypatch):
    """Episode k of a synthetic set, in whatever shard, is the real episode k modulo their number."""
    monkeypatch.setattr(scale, "PER_SHARD", 8)
    scale._make(folder / "zstd", tmp_path / "synthetic", 20)
    many, few = EpisodeReader(tmp_path / "synthetic"), EpisodeReader(folder / "zstd")
    assert len(many) == 20 and len(many.table.shards) == 3 and not list(many.verify())
    for k in (0, 7, 8, 19):
        assert (many.column("pixels", k) == few.column("pixels", k % 6)).all()


def test_the_published_page_is_what_its_raw_lines_say(tmp_path):
    shutil.copytree(RESULTS, tmp_path / "again")
    (tmp_path / "again/data.md").unlink()
    page.write(tmp_path / "again")
    assert (tmp_path / "again/data.md").read_text() == (RESULTS / "data.md").read_text()
