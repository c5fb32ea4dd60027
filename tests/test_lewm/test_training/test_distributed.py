"""Two processes train as one would: the same loss, gradient, statistics and weights, for every term there is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import lewm.objectives  # noqa: F401 registers the terms
from lewm import registry
from lewm.training import Processes, join
from lewm.types import InputError

pytestmark = pytest.mark.xdist_group("two processes")  # one worker: they are started once
TERMS = [f"{kind} {name}" for kind in ("prediction", "regulariser", "auxiliary") for name in registry.names(kind)]


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    """Quantity -> relative error of two processes beside one."""
    folder = tmp_path_factory.mktemp("two")
    script = Path(__file__).with_name("two_processes.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", script, folder]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "errors.json").read_text())


@pytest.mark.parametrize("term", TERMS)
def test_every_term_is_one_of_the_global_batch(errors, term):
    """In float64, so that what is left is the order of sums."""
    assert errors[term].keys() == {"loss", "gradient", "statistics"}
    assert max(errors[term].values()) < 1e-10


def test_a_statistic_of_each_process_alone_would_be_seen(errors):
    wrong = errors["regulariser sigreg, ungathered"]
    assert wrong["loss"] > 0.01 and wrong["gradient"] > 0.1
    assert wrong["statistics"] < 1e-10


def test_a_run_of_two_processes_ends_with_the_same_weights(errors):
    """With micro-batches, an average of the weights, and AdamW, which makes rounding a little larger."""
    assert errors["trainer default"]["weights"] < 1e-8


def test_processes_share_out_each_micro_batch():
    """Four micro-batches of four rows, two for each process: a micro-batch holds the same rows in any world."""
    rows = [Processes(rank=rank, world=2).rows(16, 4) for rank in range(2)]
    assert rows[0].tolist() == [0, 1, 4, 5, 8, 9, 12, 13]
    assert sorted(np.concatenate(rows).tolist()) == list(range(16))
    assert Processes().rows(16, 4).tolist() == list(range(16))


def test_a_batch_that_cannot_be_shared_out_is_an_error():
    with pytest.raises(InputError, match=r"multiple of 2 processes x 3 micro-batches, got 64"):
        Processes(world=2).rows(64, 3)


def test_one_process_sends_nothing_and_changes_nothing():
    alone, x = join(), torch.arange(3.0)
    assert alone == Processes() and alone.main
    assert alone.gather(x) is x and alone.mean(x) is x
    assert alone.any(True) and not alone.any(False)
    assert alone.agree(7, "a number") == 7
    alone.wait()


def test_a_device_that_is_not_there_is_an_error():
    with pytest.raises(InputError, match=r"trainer\.device=.* cannot be used"):
        join("nonsense" if torch.cuda.is_available() else "cuda")


def test_a_launch_without_the_extra_names_it(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(InputError, match=r"needs the package accelerate: pip install"):
        join()
