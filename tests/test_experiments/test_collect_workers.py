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

from experiments.collect import collect
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
        self.kind, self.after, self.rendering = kind, Path(after), {"backend": "imagined"}

    def draw(self, states):
        if self.after.exists():
            if self.kind == "hang":  # as a driver does: in C, without ever giving Python a turn
                ctypes.PyDLL(None).sleep(1000)
            if self.kind == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
        return super().draw(states)

    def advance(self, states, actions):
        if self.kind == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "raise":
            raise OSError(5, "no such luck", "camera")
        return super().advance(states, actions)
"""


@pytest.fixture
def trouble(compose, plugin, tmp_path):
    """(*overrides) -> configuration of a few short episodes of a task that a driver draws."""
    plugin(PLUGIN)
    return lambda *overrides: compose(
        "collect", f"out={tmp_path / 'set'}", "plugins=[outside]", "env=trouble", "env.image_size=16", *overrides
    )


def fingerprint(folder) -> str:
    return EpisodeReader(folder).fingerprint


def test_episodes_of_a_killed_worker_are_done_again(compose, tmp_path, capsys):
    config = compose("collect", f"out={tmp_path / 'set'}", "workers=2", "rows=1", "episodes=300")
    killer = Thread(target=kill_a_child, args=(tmp_path / "set",))
    killer.start()
    collect(config)
    killer.join()
    assert "was killed by SIGKILL; its other" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "set").glob("*.jsonl")} == {
        "episodes-w0000.jsonl",
        "episodes-w0001.jsonl",
    }
    assert not list(EpisodeReader(tmp_path / "set").verify()) and not EpisodeReader(tmp_path / "set").leftovers()
    collect({**config, "out": str(tmp_path / "whole"), "workers": 1, "rows": 250})
    assert fingerprint(tmp_path / "set") == fingerprint(tmp_path / "whole")


def kill_a_child(folder):
    """Kill one collecting process once both have committed something."""
    while sum(path.stat().st_size > 0 for path in folder.glob("*.jsonl")) < 2:
        time.sleep(0.01)
    children = [child for child in active_children() if child.name.startswith("ForkServerProcess")]
    os.kill(children[0].pid, signal.SIGKILL)


def test_a_driver_is_used_in_another_process_even_by_one_worker(trouble, compose, tmp_path):
    collect(trouble("env.kind=none", "workers=1"))
    collect(compose("collect", f"out={tmp_path / 'plain'}", "env.image_size=16"))
    assert fingerprint(tmp_path / "set") == fingerprint(tmp_path / "plain")
    assert not list((tmp_path / "set").glob("*first-picture"))


@pytest.mark.parametrize(("kind", "how"), [("hang", "ended with exit code 1"), ("crash", "was killed by SIGSEGV")])
def test_a_first_picture_that_never_comes_is_an_error_in_time(trouble, tmp_path, kind, how):
    begin = time.monotonic()
    with pytest.raises(InputError, match=f"first picture within 2 s .*{how}.*lewm doctor"):
        collect(trouble(f"env.kind={kind}", "probe_timeout=2"))
    assert time.monotonic() - begin < 30
    assert not (tmp_path / "set").exists()


def test_a_worker_that_draws_nothing_where_another_could(trouble, tmp_path):
    """As many processes at once on one GPU may; the estimate was alone, so it went well."""
    settings = trouble("env.kind=hang", f"env.after={tmp_path / 'set'}", "probe_timeout=2", "workers=2")
    begin = time.monotonic()
    with pytest.raises(InputError, match=r"first picture within 2 s \(worker w000\d ended with exit code 1\)"):
        collect(settings)
    assert time.monotonic() - begin < 30
    assert not active_children()


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


@pytest.mark.slow
def test_a_ray_cluster_records_the_same_set_though_a_worker_is_killed(compose, tmp_path, capsys):
    import ray

    config = compose("collect", f"out={tmp_path / 'ray'}", "executor=ray", "workers=2", "rows=1", "episodes=600")
    killer = Thread(target=kill_a_ray_worker, args=(tmp_path / "ray",))
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
def test_a_mistake_on_a_ray_cluster_is_one_line(trouble, tmp_path, monkeypatch):
    settings = trouble("env.kind=raise", "executor=ray")
    monkeypatch.setenv("PYTHONPATH", str(Path(sys.modules["outside"].__file__).parent), prepend=os.pathsep)
    with pytest.raises(OSError, match="no such luck"):
        collect(settings)
    away = tmp_path / "away"
    with pytest.raises(InputError, match=r"first picture within 2 s \(worker w000\d was lost"):
        collect(trouble("env.kind=hang", f"env.after={away}", f"out={away}", "probe_timeout=2", "executor=ray"))


def kill_a_ray_worker(folder):
    while sum(path.stat().st_size > 0 for path in folder.glob("*.jsonl")) < 2:
        time.sleep(0.01)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # a process may be gone by now
            if b"ray::_Caller.call" in path.read_bytes():
                os.kill(int(path.parent.name), signal.SIGKILL)
                return
