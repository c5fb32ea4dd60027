"""Collection resumes, extends, and gives the same data however it is batched."""

import os
import signal
import subprocess
import sys
from multiprocessing import active_children
from threading import Thread
from time import sleep

import numpy as np
import pytest
from filelock import FileLock

from experiments import collect as module
from experiments.collect import collect
from lewm.data import EpisodeReader
from lewm.types import InputError


def fingerprint(folder) -> str:
    return EpisodeReader(folder).fingerprint


def test_batching_changes_nothing(compose, tmp_path):
    for name, rows in (("one", 24), ("many", 5)):
        collect(compose("collect", f"out={tmp_path / name}", f"rows={rows}"))
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "many")


def test_an_interrupted_collection_continues_to_the_same_set(compose, tmp_path, monkeypatch):
    collect(compose("collect", f"out={tmp_path / 'whole'}"))
    real, batches = module.envs.record, []

    def interrupted(*args, **kwargs):
        batches.append(args)
        if len(batches) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    config = compose("collect", f"out={tmp_path / 'cut'}", "rows=10")
    monkeypatch.setattr(module.envs, "record", interrupted)
    with pytest.raises(KeyboardInterrupt):
        collect(config)
    assert len(EpisodeReader(tmp_path / "cut")) == 10
    monkeypatch.setattr(module.envs, "record", real)
    collect(config)
    assert fingerprint(tmp_path / "cut") == fingerprint(tmp_path / "whole")


def test_workers_change_nothing(compose, tmp_path):
    collect(compose("collect", f"out={tmp_path / 'alone'}"))
    collect(compose("collect", f"out={tmp_path / 'two'}", "workers=2", "rows=5"))
    assert fingerprint(tmp_path / "two") == fingerprint(tmp_path / "alone")
    assert {path.name for path in (tmp_path / "two").glob("*.jsonl")} == {
        "episodes-w0000.jsonl",
        "episodes-w0001.jsonl",
    }


def test_a_killed_worker_is_reported_and_its_work_done_by_the_next_call(compose, tmp_path):
    config = compose(
        "collect", f"out={tmp_path / 'set'}", "workers=2", "rows=1", "episodes=2000", "env.image_size=64"
    )
    killer = Thread(target=kill_a_child, args=(tmp_path / "set",))
    killer.start()
    with pytest.raises(InputError, match="killed"):
        collect(config)
    killer.join()
    kept = len(EpisodeReader(tmp_path / "set"))
    assert 0 < kept < 2000
    small = {**config, "episodes": kept + 20}
    collect(small)
    collect({**small, "out": str(tmp_path / "whole"), "workers": 1, "rows": 250})
    common = EpisodeReader(tmp_path / "whole")
    again = EpisodeReader(tmp_path / "set")
    for position in np.flatnonzero(np.isin(again.ids, common.ids)):
        theirs = int(np.searchsorted(common.ids, again.ids[position]))
        assert np.array_equal(again.column("state", position), common.column("state", theirs))


def kill_a_child(folder):
    """Kill one collecting process once both have committed something."""
    while sum(path.stat().st_size > 0 for path in folder.glob("*.jsonl")) < 2:
        sleep(0.01)
    children = [child for child in active_children() if child.name.startswith("ForkServerProcess")]
    os.kill(children[0].pid, signal.SIGKILL)


def test_more_episodes_extend_the_set(compose, tmp_path):
    collect(compose("collect", f"out={tmp_path / 'set'}", "episodes=4"))
    collect(compose("collect", f"out={tmp_path / 'set'}", "episodes=9"))
    collect(compose("collect", f"out={tmp_path / 'at-once'}", "episodes=9"))
    assert fingerprint(tmp_path / "set") == fingerprint(tmp_path / "at-once")


def test_the_seed_makes_another_set(compose, tmp_path):
    for seed in (0, 1):
        collect(compose("collect", f"out={tmp_path / str(seed)}", f"seed={seed}"))
    assert fingerprint(tmp_path / "0") != fingerprint(tmp_path / "1")


def test_a_set_is_collected_into_by_one_command_at_a_time(compose, tmp_path):
    config = compose("collect", f"out={tmp_path / 'set'}")
    collect(config)
    with FileLock(tmp_path / "set/.collect.lock"), pytest.raises(InputError, match="another `lewm collect`"):
        collect({**config, "episodes": 30})
    assert len(EpisodeReader(tmp_path / "set")) == 24


KILLED = """
import sys
from experiments import config
from experiments.collect import collect
config.store_groups()
if __name__ == "__main__":
    collect(config.compose("collect", [f"out={sys.argv[1]}", "episodes=100000", "workers=2", "rows=2"]))
"""


def test_workers_end_with_the_collection_that_was_killed(tmp_path):
    (tmp_path / "killed.py").write_text(KILLED)
    process = subprocess.Popen([sys.executable, tmp_path / "killed.py", tmp_path / "set"])
    logs = [tmp_path / f"set/episodes-w000{k}.jsonl" for k in (0, 1)]
    while not all(log.exists() and log.stat().st_size for log in logs):
        assert process.poll() is None
        sleep(0.02)
    process.kill()
    process.wait()
    sleep(1)
    sizes = [log.stat().st_size for log in logs]
    sleep(0.5)
    assert [log.stat().st_size for log in logs] == sizes
    assert not list(EpisodeReader(tmp_path / "set").verify())
