"""`lewm import`: published weights become a run like any other."""

from pathlib import Path

import numpy as np
import pytest
import torch

from experiments import config  # noqa: F401  registers the planners
from experiments.collect import collect
from experiments.import_weights import import_weights
from lewm import checkpoint, registry
from lewm.data import EpisodeReader
from lewm.types import InputError

GOLDEN = Path(__file__).parents[1] / "test_lewm/test_models/golden/transformers_4/weights.pt"
HEADS = ["--encoder-heads=2", "--predictor-heads=2"]
ACTIONS = ["--low=-1,-2", "--high=1,2", "--mean=0.25,-0.5", "--std=0.5,2"]


def test_the_run_holds_the_weights_and_the_published_recipe(tmp_path, capsys):
    command = [str(GOLDEN), str(tmp_path / "run"), *HEADS, *ACTIONS]
    run = import_weights(command)
    assert "images 24 x 24, history 3, blocks of 5 actions of dimension 2" in capsys.readouterr().out
    model = checkpoint.load(run)
    theirs = torch.load(GOLDEN, weights_only=True)
    assert torch.equal(model.predictor.position, theirs["predictor.pos_embedding"])
    assert model.action_std.tolist() == [0.5, 2.0] and model.action_mean.tolist() == [0.25, -0.5]
    advice = model.recommendation
    planner = registry.build("planner", advice["planner"])
    assert (planner.horizon, planner.samples, planner.elites, planner.iterations) == (25, 300, 30, 30)
    assert (planner.init_std, planner.warm_iterations, advice["replan_every"]) == (1.0, 30, 25)
    cost = registry.build("cost", advice["cost"])
    assert (cost.running, cost.terminal) == (0.0, 1.0)
    assert checkpoint.provenance(run)["imported"]["weights"] == "weights.pt"
    before = (run / "checkpoint/model.safetensors").stat()
    assert import_weights(command) == run and (run / "checkpoint/model.safetensors").stat() == before
    with pytest.raises(InputError, match=r"another import run \(actions.std is \[0.5, 2.0\], now \[1.0, 2.0\]\)"):
        import_weights([*command, "--std=1,2"])


def test_a_data_set_gives_the_actions_and_the_task(tmp_path, compose, lewm):
    data, run = tmp_path / "data", tmp_path / "run"
    collect(compose("collect", f"out={data}", "env.image_size=24"))
    import_weights([str(GOLDEN), str(run), *HEADS, f"--data={data}", "--std=3,4"])
    reader, model = EpisodeReader(data), checkpoint.load(run)
    spec = reader.action_spec(np.arange(len(reader)))
    np.testing.assert_array_equal(model.action_spec.mean, spec.mean)
    np.testing.assert_array_equal(model.action_spec.high, spec.high)
    assert model.action_spec.std.tolist() == [3.0, 4.0]
    few = ["planner=cem", "planner.samples=8", "planner.elites=4", "planner.horizon=10", "replan_every=10"]
    protocol = ["pairs=2", "budget=10", "latency_pairs=1", "threads=1", "agents=[model,random]"]
    code, _, err = lewm("evaluate", f"run={run}", *few, *protocol)
    assert code == 0, err
    code, _, err = lewm("evaluate", f"run={run}", f"out={tmp_path}/h", "track=heldout", f"data={data}", *protocol)
    assert code == 2 and "does not record the share held out" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give --data FOLDER, or also --low, --high, --mean, --std"),
        (ACTIONS[:3], "or also --std, numbers"),
        ([*ACTIONS[:3], "--std=0,1"], "a standard deviation above 0"),
        ([*ACTIONS[:3], "--std=1"], "arrays of one length"),
        ([*ACTIONS[:3], "--std=1,x"], "--std takes numbers separated by commas, got '1,x'"),
    ],
)
def test_actions_must_be_known(options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        import_weights([str(GOLDEN), str(tmp_path / "run"), *HEADS, *options])
    assert not (tmp_path / "run").exists()
