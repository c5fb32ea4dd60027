"""Workers that are killed, hang or crash: their episodes are done by others, or one line says what to do."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path
from threading import Thread

import pytest

from experiments.collect import collect, crew, verb
from experiments.collect.executors import Died, LocalExecutor
from experiments.collect.worker import Share, record_share
from lewm.data import EpisodeReader
from lewm.types import InputError

PLUGIN = """
import ctypes, os, signal
from pathlib import Path
from envs import TwoRoom
from lewm import register

@register("env", "trouble")
class Trouble(TwoRoom):
    def __init__(self, rows: int, *, kind: str = "none", after: str = "/", **options):
        super().__init__(rows, **options)
        self.kind, self.after, self.rendering, self.steps = kind, Path(after), {"backend": "imagined"}, 0

    def first(self):
        try:
            self.after.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def draw(self, states):
        if self.after.exists():
            if self.kind == "hang":  # as a driver does: in C, without ever giving Python a turn
                ctypes.PyDLL(None).sleep(1000)
            if self.kind == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
        return super().draw(states)

    def advance(self, states, actions):
        self.steps += 1
        if self.kind == "die" or (self.kind == "die once" and self.steps == 70 and self.first()):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "raise":
            raise OSError(5, "no such luck", "camera")
        return super().advance(states, actions)
"""


@pytest.fixture(autouse=True)
def without_a_sheet(monkeypatch):
    """These tests look at the data only."""
    monkeypatch.setattr(verb, "save_overview", lambda *_: None)


@pytest.fixture
def trouble(compose, plugin, tmp_path):
    """(*overrides) -> configuration of a few short episodes of a task that a driver draws."""
    plugin(PLUGIN)
    return lambda *overrides: compose(
        "collect", f"out={tmp_path / 'set'}", "plugins=[outside]", "env=trouble", "env.image_size=16", *overrides
    )


def fingerprint(folder) -> str:
    return EpisodeReader(folder).fingerprint


def test_an_answer_larger_than_a_pipe_comes_through():
    executor = LocalExecutor()
    error, value = executor.start(exec, "raise ValueError('x' * 200_000)"), executor.start(bytes, 300_000)
    for handle in (error, value):
        while not executor.wait([handle], 10):
            pass
    with pytest.raises(ValueError, match=r"x{200000}"):
        executor.result(error)
    assert executor.result(value) == bytes(300_000)
    assert not active_children()


def test_a_worker_that_is_killed_in_the_middle_of_its_answer_has_died():
    executor = LocalExecutor()
    handle = executor.start(bytes, 10_000_000)
    while not executor.wait([handle], 10):
        pass
    handle.process.kill()
    with pytest.raises(Died, match="was killed by SIGKILL"):
        executor.result(handle)


class Crowded(LocalExecutor):
    """A cluster that is full for two looks, and says nothing for a third."""

    looks = 0

    def wait(self, handles, seconds):
        self.looks += 1
        return super().wait(handles, seconds) if self.looks > 3 else []

    def waiting(self, handles):
        return len(handles) if self.looks < 3 else 0


@pytest.mark.parametrize(("patience", "times"), [(0.0, 1), (60.0, 0)])
def test_workers_that_wait_for_a_place_are_spoken_of_once(compose, tmp_path, capsys, monkeypatch, patience, times):
    config = compose("collect", f"out={tmp_path / 'set'}", "env.image_size=16", "episodes=1", "rows=1", "workers=2")
    collect(config)
    monkeypatch.setattr(crew, "PATIENCE", patience)
    info, ticks = EpisodeReader(tmp_path / "set").info, []
    crew.record(Crowded(), config, info, [1, 2], ticks.append)
    assert sum(ticks) == 2
    assert capsys.readouterr().out.count("2 of 2 workers wait until the cluster has room") == times


def test_episodes_of_a_killed_worker_are_done_again(trouble, compose, tmp_path, capsys):
    """It dies in the third of its six episodes."""
    collect(trouble("env.kind=die once", f"env.after={tmp_path / 'died'}", "workers=2", "rows=1", "episodes=12"))
    assert "was killed by SIGKILL; its other 4 episodes are done by a new one" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "set").glob("*.jsonl")} == {
        "episodes-w0000.jsonl",
        "episodes-w0001.jsonl",
    }
    assert not list(EpisodeReader(tmp_path / "set").verify()) and not EpisodeReader(tmp_path / "set").leftovers()
    collect(compose("collect", f"out={tmp_path / 'whole'}", "env.image_size=16", "episodes=12"))
    assert fingerprint(tmp_path / "set") == fingerprint(tmp_path / "whole")


@pytest.mark.slow
def test_a_driver_is_used_in_another_process_even_by_one_worker(trouble, compose, tmp_path):
    collect(trouble("env.kind=none", "workers=1"))
    collect(compose("collect", f"out={tmp_path / 'plain'}", "env.image_size=16"))
    assert fingerprint(tmp_path / "set") == fingerprint(tmp_path / "plain")
    assert not list((tmp_path / "set").glob("*first-picture"))


@pytest.mark.slow
def test_what_drew_is_on_record_and_need_not_be_the_same(compose, tmp_path):
    config = compose("collect", f"out={tmp_path / 'set'}", "env=reacher", "env.image_size=16", "episodes=1")
    collect(config)
    info = EpisodeReader(tmp_path / "set").info
    assert len(info.creator["renderer"]) > 3 and "renderer" not in str(info.source)
    (tmp_path / "set/dataset.json").unlink()
    replace(info, creator={**info.creator, "renderer": "another GPU"}).write(tmp_path / "set")
    collect({**config, "episodes": 2})
    assert EpisodeReader(tmp_path / "set").info.creator["renderer"] == "another GPU"


@pytest.mark.parametrize(("kind", "how"), [("hang", "ended with exit code 1"), ("crash", "was killed by SIGSEGV")])
def test_a_first_picture_that_never_comes_is_an_error_in_time(trouble, tmp_path, kind, how):
    begin = time.monotonic()
    with pytest.raises(InputError, match=f"first picture within 1 s .*{how}.*lewm doctor"):
        collect(trouble(f"env.kind={kind}", "probe_timeout=1"))
    assert time.monotonic() - begin < 30
    assert not (tmp_path / "set").exists()


def test_a_worker_that_draws_nothing_where_another_could(trouble, tmp_path):
    """As many processes at once on one GPU may; the estimate was alone, so it went well."""
    settings = trouble("env.kind=hang", f"env.after={tmp_path / 'set'}", "probe_timeout=1", "workers=2")
    begin = time.monotonic()
    with pytest.raises(InputError, match=r"first picture within 1 s \(worker w000\d ended with exit code 1\)"):
        collect(settings)
    assert time.monotonic() - begin < 30
    assert not active_children() and not list((tmp_path / "set").glob("*first-picture"))


def test_episodes_that_kill_every_worker_are_given_up_in_the_end(trouble, capsys):
    with pytest.raises(InputError, match=r"3 .* in a row died .* 0 and after.*SIGKILL \(out of memory\?\). 0 ep"):
        collect(trouble("env.kind=die"))
    assert capsys.readouterr().out.count("are done by a new one") == 2


def test_an_error_in_a_worker_is_the_collections(trouble):
    with pytest.raises(OSError, match="no such luck") as caught:
        collect(trouble("env.kind=raise", "workers=2"))
    assert "in advance" in caught.value.__notes__[0]
    assert not active_children()


def test_a_worker_without_the_shared_folder_or_with_other_pictures_says_so(compose, tmp_path):
    config = compose("collect", f"out={tmp_path / 'set'}", "episodes=2")
    collect(config)
    info = EpisodeReader(tmp_path / "set").info
    away = Share({**config, "out": str(tmp_path / "away"), "rows": 1}, info, "w0000", (5,))
    with pytest.raises(InputError, match="all nodes must share `out`"):
        record_share(away)
    assert not (tmp_path / "away").exists()
    source = info.source | {"task": {"version": 0, "rendering": {"backend": "egl"}}}
    other = Share({**config, "out": str(tmp_path / "other"), "rows": 1}, replace(info, source=source), "w0", (5,))
    other.info.write(tmp_path / "other")
    with pytest.raises(InputError, match=r"draws with .*numpy.*MUJOCO_GL alike"):
        record_share(other)


def test_ray_that_is_not_installed_is_named_with_its_command(compose, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="needs the package ray: pip install"):
        collect(compose("collect", f"out={tmp_path / 'set'}", "executor=ray"))
    assert not (tmp_path / "set").exists()


@pytest.mark.slow
def test_a_worker_imports_torch_only_for_a_policy_that_searches():
    code = """
import sys
from experiments.collect.worker import build_policy
build_policy({"plugins": [], "policy": {"name": "mixed"}})
assert "torch" not in sys.modules and "matplotlib" not in sys.modules
parts = {"parts": ["ou", {"name": "search", "samples": 16}], "weights": [1, 1]}
assert type(build_policy({"plugins": [], "policy": {"name": "mixed", **parts}}).policies[1]).__name__ == "Search"
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


# Ray forks to start its processes, and a package that other tests import warns of any fork.
lance_is_quiet = pytest.mark.filterwarnings("ignore:lance is not fork-safe")


@pytest.mark.slow
@lance_is_quiet
def test_a_ray_cluster_records_the_same_set_though_a_worker_is_killed(compose, tmp_path, capsys):
    import ray

    config = compose("collect", f"out={tmp_path / 'ray'}", "executor=ray", "workers=2", "rows=1", "episodes=600")
    killer = Thread(target=kill_a_ray_worker, args=(tmp_path / "ray",), daemon=True)
    killer.start()
    collect(config)
    killer.join()
    assert not ray.is_initialized()
    assert "its other" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "ray").glob("*.jsonl")}
    assert len(names) == 3 and any("r1" in name for name in names)
    collect({**config, "out": str(tmp_path / "here"), "executor": {"name": "local"}, "workers": 1, "rows": 250})
    assert fingerprint(tmp_path / "ray") == fingerprint(tmp_path / "here")


@pytest.mark.slow
@lance_is_quiet
def test_a_mistake_on_a_ray_cluster_is_one_line(trouble, tmp_path, monkeypatch):
    settings = trouble("env.kind=raise", "executor=ray")
    monkeypatch.setenv("PYTHONPATH", str(Path(sys.modules["outside"].__file__).parent), prepend=os.pathsep)
    with pytest.raises(OSError, match="no such luck"):
        collect(settings)
    away = tmp_path / "away"
    with pytest.raises(InputError, match=r"first picture within 1 s \(worker w000\d was lost"):
        collect(trouble("env.kind=hang", f"env.after={away}", f"out={away}", "probe_timeout=1", "executor=ray"))


def kill_a_ray_worker(folder):
    """Kill one collecting process once both have committed something."""
    deadline = time.monotonic() + 120
    while sum(path.stat().st_size > 0 for path in folder.glob("*.jsonl")) < 2:
        if time.monotonic() > deadline:
            return
        time.sleep(0.01)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # a process may be gone by now
            if b"ray::_Caller.call" in path.read_bytes():
                os.kill(int(path.parent.name), signal.SIGKILL)
                return
