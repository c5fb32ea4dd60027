"""Collection resumes, extends, and gives the same data however it is batched."""

import pytest

from experiments import collect as module
from experiments.collect import collect
from lewm.data import EpisodeReader


def fingerprint(folder) -> str:
    return EpisodeReader(folder).fingerprint


def test_batching_changes_nothing(compose, tmp_path):
    for name, rows in (("one", 24), ("many", 5)):
        collect(compose("collect", f"out={tmp_path / name}", f"rows={rows}"))
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "many")


def test_an_interrupted_collection_continues_to_the_same_set(compose, tmp_path, monkeypatch):
    collect(compose("collect", f"out={tmp_path / 'whole'}"))
    real, batches = module.envs.rollout, []

    def interrupted(*args, **kwargs):
        batches.append(args)
        if len(batches) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    config = compose("collect", f"out={tmp_path / 'cut'}", "rows=10")
    monkeypatch.setattr(module.envs, "rollout", interrupted)
    with pytest.raises(KeyboardInterrupt):
        collect(config)
    assert len(EpisodeReader(tmp_path / "cut")) == 10
    monkeypatch.setattr(module.envs, "rollout", real)
    collect(config)
    assert fingerprint(tmp_path / "cut") == fingerprint(tmp_path / "whole")


def test_more_episodes_extend_the_set(compose, tmp_path):
    collect(compose("collect", f"out={tmp_path / 'set'}", "episodes=4"))
    collect(compose("collect", f"out={tmp_path / 'set'}", "episodes=9"))
    collect(compose("collect", f"out={tmp_path / 'at-once'}", "episodes=9"))
    assert fingerprint(tmp_path / "set") == fingerprint(tmp_path / "at-once")


def test_the_seed_makes_another_set(compose, tmp_path):
    for seed in (0, 1):
        collect(compose("collect", f"out={tmp_path / str(seed)}", f"seed={seed}"))
    assert fingerprint(tmp_path / "0") != fingerprint(tmp_path / "1")
