"""A tiny run, made once: collected, trained for a few steps and evaluated. It plans badly and fast.

And quiet for a library that closes other people's files.
"""

from __future__ import annotations

import gc
import importlib
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # tiny tensors: a second thread costs more than it gives

with suppress(ImportError):  # below dm_control: it keeps the stderr of the test that imports it, pytest's, and
    from absl import logging as absl_logging  # closes it as soon as Hydra sets up logging

    absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__

TINY = {
    "collect": ["episodes=24", "steps=30"],
    "train": [
        "trainer.steps=6",
        "trainer.batch_size=8",
        "trainer.log_every=2",
        "trainer.save_every=2",
        "model.latent_dim=8",
        "model.projector_hidden=16",
        "model.encoder.channels=[4,4,8]",
        "model.encoder.features=16",
        "model.predictor.width=16",
        "planner.samples=8",
        "planner.elites=4",
        "threads=1",
    ],
    "evaluate": ["pairs=6", "budget=15", "latency_pairs=2", "rows=4", "threads=1"],
    "diagnose": ["frames=100", "horizon=3", "threads=1"],
}
TINY["pretrain"] = [setting for setting in TINY["train"] if not setting.startswith("planner.")]


def pytest_collection_finish() -> None:
    """Whatever is there by now stays to the end; each full collection would take 0.3 s to walk through it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny() -> dict[str, list[str]]:
    """Overrides that make each verb take about a second."""
    return TINY


@pytest.fixture(scope="session")
def small_probes():
    """Probe few frames after each training: encoding thousands takes longer than a tiny training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("experiments.train"), "PROBE_FRAMES", 64)
        yield


@pytest.fixture(scope="session")
def composed_once():
    """Hydra makes the same of the same settings and parts: it is asked once, not at every call of a verb."""
    from omegaconf import OmegaConf

    from experiments import config
    from lewm import registry

    composed, stored, store, ask = {}, [], config.store_groups, config._compose

    def parts() -> frozenset:
        return frozenset((kind, *part) for kind, known in registry._PARTS.items() for part in known.items())

    def store_groups() -> None:
        if stored != [parts()]:
            store()
            stored[:] = [parts()]

    def _compose(verb: str, overrides: list[str]) -> object:
        asked = (verb, *overrides, parts())
        if asked not in composed:
            composed[asked] = ask(verb, overrides)
            OmegaConf.set_readonly(composed[asked], True)
        return composed[asked]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "store_groups", store_groups)
        patch.setattr(config, "_compose", _compose)
        yield


@pytest.fixture(scope="session")
def compose(small_probes, composed_once):
    """(verb, *overrides) -> configuration, with the verb's tiny overrides first, less those that hold `without`."""
    from experiments import config

    def compose(verb: str, *overrides: str, without: str = "nothing") -> dict:
        return config.compose(verb, [*(o for o in TINY[verb] if without not in o), *overrides])

    return compose


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, compose) -> Path:
    """A run folder with data/, checkpoint/, metrics.jsonl, episodes.jsonl and summary.json. Read only."""
    from experiments.collect import collect
    from experiments.evaluate import evaluate
    from experiments.train import train

    run = tmp_path_factory.mktemp("tiny") / "run"
    collect(compose("collect", f"out={run}/data"))
    train(compose("train", f"data={run}/data", f"out={run}"))
    evaluate(compose("evaluate", f"run={run}"))
    return run


@pytest.fixture
def lewm(small_probes, composed_once, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Call the console script in this process: lewm("train", "out=x") -> (exit code, stdout, stderr)."""
    from experiments import cli

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lewm", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return call
