"""Our exports before their real readers: stable-worldmodel's HDF5Dataset and HDF5Writer, minari.load_dataset.

The readers run in a venv of their own, made by experiments/peers/setup_data.sh (40 s, 1.6 GB): LEWM_PEERS names one
that exists already.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from lewm.data import Column
from lewm.data.formats.minari import Minari
from lewm.data.formats.swm_hdf5 import SwmHdf5

ROOT = Path(__file__).parents[4]
STEPS = [5, 8]

WORLDMODEL = """
import importlib.util, json, pathlib, sys, types
import numpy as np
site = pathlib.Path(importlib.util.find_spec("stable_worldmodel").origin).parents[1]
for name in ("stable_worldmodel", "stable_worldmodel.data", "stable_worldmodel.data.formats"):
    sys.modules[name] = types.ModuleType(name)  # their __init__ would import simulators and Lance
    sys.modules[name].__path__ = [str(site / name.replace(".", "/"))]
from stable_worldmodel.data.formats.hdf5 import HDF5Dataset, HDF5Writer
path = sys.argv[1]
data = HDF5Dataset(path=path, frameskip=2, num_steps=2)
windows = [data[i] for i in range(len(data))]
one = HDF5Dataset(path=path)
whole = {name: rows.numpy() for name, rows in one.load_episode(1).items()}
data.h5_file.close(), one.h5_file.close()
with HDF5Writer(path, mode="append") as writer:  # their writer goes on where ours stopped
    writer.write_episode({n: list(x.transpose(0, 2, 3, 1) if n == "pixels" else x) for n, x in whole.items()})
again = HDF5Dataset(path=path)
print(json.dumps({
    "lengths": data.lengths.tolist(), "columns": sorted(data.column_names),
    "shapes": {name: [str(rows.dtype), list(rows.shape)] for name, rows in windows[0].items()},
    "pixels": [[w["pixels"][:, 0, 0, 0].tolist(), w["pixels"][:, 0, 0, 1].tolist()] for w in windows],
    "state": [w["state"].tolist() for w in windows],
    "action": [w["action"].nan_to_num(-1).tolist() for w in windows],
    "reward": np.nan_to_num(whole["reward"], nan=-1).tolist(), "terminated": whole["terminated"].tolist(),
    "appended": [again.lengths.tolist(), again.load_episode(2)["state"].tolist()],
}))
"""

MINARI = """
import json, sys, minari
data = minari.load_dataset("push-v0")
episodes = list(data.iterate_episodes())
print(json.dumps({
    "total": [data.total_episodes, data.total_steps], "sampled": len(data.sample_episodes(2)),
    "inside": all(data.action_space.contains(e.actions[0]) for e in episodes)
    and all(data.observation_space.contains({k: v[0] for k, v in e.observations.items()}) for e in episodes),
    "spaces": {name: [str(box.dtype), list(box.shape)] for name, box in data.observation_space.items()},
    "bounds": [data.action_space.low.tolist(), data.action_space.high.tolist()],
    "pixels": [e.observations["pixels"].tolist() for e in episodes],
    "state": [e.observations["state"].tolist() for e in episodes],
    "contact": [e.observations["contact"].tolist() for e in episodes],
    "action": [e.actions.tolist() for e in episodes], "reward": [e.rewards.tolist() for e in episodes],
    "terminated": [e.terminations.tolist() for e in episodes],
    "truncated": [e.truncations.tolist() for e in episodes],
    "seeds": [m["seed"] for m in data.storage.get_episode_metadata(range(2))],
    "infos": [e.infos["effort"].tolist() for e in episodes],
}))
"""


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """Run a script of the judges' venv and read the JSON line it prints last."""
    folder = Path(os.environ.get("LEWM_PEERS") or tmp_path_factory.mktemp("peers") / "venv")
    if not (folder / "bin" / "python").exists():
        subprocess.run(["bash", ROOT / "experiments/peers/setup_data.sh", folder], check=True, timeout=600)

    def ask(script, *arguments, **environment):
        done = subprocess.run(
            [folder / "bin" / "python", "-c", script, *map(str, arguments)],
            env=os.environ | environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return ask


@pytest.fixture
def exported(tmp_path, make_info, change, make_episode, write_set):
    """A store whose rows say (episode, step), written as both formats."""
    frame = Column("uint8", (32, 32, 3), codec="zstd:1")
    info = make_info(
        pixels=frame,
        reward=Column("float32", (), transition=True),
        terminated=Column("bool", (), transition=True),
        effort=Column("float64", (1,), transition=True),
        contact=Column("bool", (1,)),
    )
    episodes = []
    for number, steps in enumerate(STEPS):
        times = np.arange(steps + 1)
        pixels = np.random.default_rng(number).integers(0, 256, (steps + 1, 32, 32, 3), np.uint8)
        pixels[:, 0, 0, 0], pixels[:, 0, 0, 1] = times, number
        episodes.append(
            change(
                make_episode(number, steps, make_info(), {"seed": 70 + number}),
                pixels=pixels,
                reward=(100 * number + times[:-1]).astype(np.float32),
                terminated=times[1:] == steps,
                effort=times[:-1, None] / 8,
                contact=times[:, None] % 2 == 1,
            )
        )
    reader = write_set(tmp_path / "store", episodes, info)
    SwmHdf5.write(reader, tmp_path / "push.h5", fps=10, tick=lambda count: None)
    Minari.write(reader, tmp_path / "push-v0", fps=10, tick=lambda count: None)
    return tmp_path, episodes


@pytest.mark.slow
def test_stable_worldmodel_reads_the_same_windows(judge, exported):
    folder, episodes = exported
    read = judge(WORLDMODEL, folder / "push.h5")
    assert read["lengths"] == [steps + 1 for steps in STEPS] and read["columns"] == sorted(episodes[0].columns)
    assert read["shapes"]["pixels"] == ["torch.uint8", [2, 3, 32, 32]]
    assert read["shapes"]["action"] == ["torch.float32", [2, 4]] and read["shapes"]["reward"][1] == [2]
    expected = [(e, t) for e, steps in enumerate(STEPS) for t in range(steps + 1 - 4 + 1)]
    assert len(read["pixels"]) == len(expected)
    for k, (e, t) in enumerate(expected):
        frames = episodes[e].columns["pixels"][[t, t + 2], 0]  # row 0 of the image: (frames, w, C) there, C first
        assert read["pixels"][k] == [frames[:, 0, 0].tolist(), frames[:, 1, 0].tolist()]
        assert read["state"][k] == [[e, t], [e, t + 2]]
        steps = [[e + 1, t + i + 1] if t + i < STEPS[e] else [-1, -1] for i in range(4)]
        assert read["action"][k] == [steps[0] + steps[1], steps[2] + steps[3]]
    assert read["reward"] == [-1, *(100.0 + t for t in range(STEPS[1]))]
    assert read["terminated"] == [False] * STEPS[1] + [True]
    lengths, states = read["appended"]
    assert lengths == [6, 9, 9] and states == [[1, t] for t in range(9)]
    assert [e.steps for e in SwmHdf5.open(folder / "push.h5").episodes()] == [5, 8, 8]


@pytest.mark.slow
def test_minari_reads_the_same_episodes(judge, exported):
    folder, episodes = exported
    read = judge(MINARI, MINARI_DATASETS_PATH=str(folder))
    assert read["total"] == [2, sum(STEPS)] and read["sampled"] == 2 and read["inside"]
    assert read["spaces"] == {
        "pixels": ["uint8", [32, 32, 3]],
        "state": ["float64", [2]],
        "contact": ["bool", [1]],
    }
    assert read["bounds"] == [[-500, -500], [500, 500]] and read["seeds"] == [70, 71]
    for e, episode in enumerate(episodes):
        for name in ("pixels", "state", "contact", "action", "reward", "terminated"):
            np.testing.assert_array_equal(np.array(read[name][e]), episode.columns[name])
        assert not any(read["truncated"][e])
        assert read["infos"][e] == [[0.0], *episode.columns["effort"].tolist()]
