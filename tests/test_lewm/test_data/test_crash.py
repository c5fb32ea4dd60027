"""Kills and failing disks: what was committed stays, what was in flight is written again, the set ends up the same.

The kills happen in a process of its own (this file, run as a script), which has one thread and imports little, so
that it can fork cheaply: a collection is a fork that is killed by a signal, at a random moment or at its k-th
request to the system.
"""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import pytest

from lewm.data import Column, DatasetInfo, EpisodeReader, EpisodeWriter, split_episodes
from lewm.data.log import committed_ids
from lewm.types import Episode, InputError

COLUMNS = {
    "pixels": Column("uint8", (4, 4, 1), 2, "zstd:1"),
    "reward": Column("float64", (), transition=True),
    "action": Column("float32", (2,)),
}
INFO = DatasetInfo(COLUMNS, (-9.0, -9.0), (9.0, 9.0), {"env": "stub"})
SHARD_BYTES = 500  # two or three episodes
GROUP = 2


def episode(number):
    """A function of its number alone, as every work item must be."""
    rng = np.random.default_rng(number)
    steps = int(rng.integers(1, 12))
    pixels = rng.integers(0, 256, (steps // 2 + 1, 4, 4, 1), np.uint8)
    columns = {"pixels": pixels, "reward": rng.random(steps), "action": rng.random((steps, 2), np.float32)}
    return Episode(number, columns, {"seed": [number, 7]})


def groups(ids):
    return [ids[first : first + GROUP] for first in range(0, len(ids), GROUP)]


def collect(folder, name, ids):
    """Every second group at once, the others row by row."""
    with EpisodeWriter(folder, INFO, writer=name, shard_bytes=SHARD_BYTES) as writer:
        for number, group in enumerate(groups(ids)):
            made = [episode(i) for i in group]
            if number % 2:
                made = [recording(writer, each) for each in made]
            writer.commit(made)


def recording(writer, made):
    begun = writer.begin(made.id, made.facts)
    for name, rows in made.columns.items():
        for row in rows:
            begun.add(**{name: row})
    return begun


def check(folder):
    """The committed ids of a set, which must open, each episode as it was made."""
    try:
        reader = EpisodeReader(folder)
    except InputError as error:
        assert any(text in str(error) for text in ("no committed episode", "(no dataset.json)")), error
        assert not any(b"\n" in path.read_bytes() for path in folder.glob("episodes-*.jsonl"))
        return set()
    assert list(reader.verify()) == []
    for position, number in enumerate(reader.ids.tolist()):
        found, made = reader.episode(position), episode(number)
        assert (found.id, found.facts) == (made.id, made.facts)
        assert all(found.columns[k].tobytes() == made.columns[k].tobytes() for k in COLUMNS), number
    return set(reader.ids.tolist())


def identity(folder):
    """All that must not depend on who wrote a set, and with which interruptions."""
    reader, ram = EpisodeReader(folder), EpisodeReader(folder, cache="ram")
    for k in range(len(reader)):  # decodes whole files: nothing is between the committed rows
        assert np.array_equal(ram.column("pixels", k), reader.column("pixels", k))
    split = [reader.ids[side].tolist() for side in split_episodes(reader, 0.3)]
    return reader.ids.tolist(), reader.steps.tolist(), split, reader.fingerprint


def uninterrupted(folder, count):
    collect(folder, "w0", list(range(count)))
    return identity(folder)


class Requests:
    """Counts what is asked of the file system, in place of `Path.open` and some of `os`; acts on a part of it."""

    def __init__(self, act):
        self.count, self._act = 0, act
        self._was = {name: getattr(os, name) for name in ("fsync", "mkdir", "replace", "link")}
        self._open = Path.open

    def __enter__(self):
        def path_open(path, mode="r", *arguments, **options):
            if mode not in ("ab", "w"):
                return self._open(path, mode, *arguments, **options)
            self.ask(None)
            raw = Asking(path, mode)
            raw.requests = self
            return raw if mode == "ab" else io.TextIOWrapper(io.BufferedWriter(raw))

        def ask_first(name):
            def function(*arguments, **options):
                self.ask(None)
                return None if name == "fsync" else self._was[name](*arguments, **options)

            return function

        Path.open = path_open
        for name in self._was:
            setattr(os, name, ask_first(name))
        return self

    def __exit__(self, *_):
        Path.open = self._open
        for name, function in self._was.items():
            setattr(os, name, function)

    def ask(self, half):
        """One request more. `half` does half of it, where there is such a thing."""
        self.count += 1
        self._act(self.count, half)


class Asking(io.FileIO):
    """A file that asks first."""

    def write(self, data):
        self.requests.ask(lambda: super(Asking, self).write(bytes(data)[: len(data) // 2]))
        return super().write(data)

    def truncate(self, size=None):
        self.requests.ask(None)
        return super().truncate(size)


class Full:
    """Acts as a disk that fails at some requests, having done half of them or not."""

    def __init__(self, at, halves):
        self.at, self.halves, self.hits = at, halves, 0

    def __call__(self, count, half):
        if count in self.at:
            self.hits += 1
            if half and self.halves:
                half()
            raise OSError(28, "No space left on device")


def insist(action):
    """Repeat what fails for want of space."""
    while True:
        try:
            return action()
        except OSError as error:
            assert error.errno == 28
            continue


def count_requests(folder, ids):
    with Requests(lambda *_: None) as requests:
        collect(folder, "w0", ids)
    return requests.count


@pytest.mark.parametrize(("times", "halves"), [(1, False), (1, True), (3, True)])
def test_a_disk_that_fails_at_any_request_costs_nothing(tmp_path, times, halves):
    """One writer object goes on after the error: nothing is lost, nothing is there twice, nothing is half there."""
    ids = list(range(2 * GROUP + 1))
    wanted = uninterrupted(tmp_path / "wanted", len(ids))
    total = count_requests(tmp_path / "counted", ids)
    assert total > 60
    for first in range(1, total + 1):
        folder = tmp_path / f"{first}"
        full = Full(range(first, first + times), halves)
        with Requests(full):
            writer = insist(lambda folder=folder: EpisodeWriter(folder, INFO, writer="w", shard_bytes=SHARD_BYTES))
            for number, group in enumerate(groups(ids)):
                made = [episode(i) for i in group]
                before = set(ids[: number * GROUP])
                while True:
                    try:
                        writer.commit(made)
                        break
                    except OSError as error:
                        assert f"episodes {made[0].id} to {made[-1].id}" in str(error)
                        if times == 1:  # else it may be taken back later only, by the next commit
                            assert check(folder) == before, f"request {first}"
            writer.close()
        assert full.hits == times or first + times > total, f"request {first} never came"
        assert check(folder) == set(ids)
        assert identity(folder) == wanted


def test_a_disk_that_stays_full_costs_only_what_came_after(tmp_path):
    """The process ends with the error; another one goes on when there is space again."""
    ids = list(range(2 * GROUP + 1))
    wanted = uninterrupted(tmp_path / "wanted", len(ids))
    for first in range(1, count_requests(tmp_path / "counted", ids) + 1, 3):
        folder, committed = tmp_path / f"{first}", set()
        with Requests(Full(range(first, 10**6), halves=True)):
            try:
                with EpisodeWriter(folder, INFO, writer="w", shard_bytes=SHARD_BYTES) as writer:
                    for group in groups(ids):
                        writer.commit([episode(i) for i in group])
                        committed |= set(group)
            except OSError as error:
                assert error.errno == 28
        found = check(folder)  # a group whose line is written, and whose taking back failed, may be there
        assert committed <= found
        collect(folder, "w", [i for i in ids if i not in found])
        assert identity(folder) == wanted


# In the process that forks


def fork(function, *arguments):
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        function(*arguments)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(pid):
    """Whether a fork ended by itself (else it was killed); one that failed is a failure here."""
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0
    return True


def die_at(number, folder, name, ids):
    """Collect until the `number`-th request, do half of it, die."""

    def die(count, half):
        if count == number:
            if half:
                half()
            os.kill(os.getpid(), signal.SIGKILL)

    with Requests(die):
        collect(folder, name, ids)


def resume(folder, count, writers):
    missing = [i for i in range(count) if i not in committed_ids(folder)]
    for k in range(writers):
        collect(folder, f"w{k}", missing[k::writers])


def kill_at_every_request(root, seed):
    """Die at each request of a short collection, then somewhere while mending that, then finish."""
    os.fsync = lambda handle: None  # a kill loses nothing that was written
    rng, count = random.Random(seed), 2 * GROUP + 1
    wanted = uninterrupted(root / "wanted", count)
    total = count_requests(root / "counted", list(range(count)))
    empty = 0
    for number in range(1, total + 1):
        folder = root / f"{number}"
        assert not ended(fork(die_at, number, folder, "w0", list(range(count)))), number
        done = check(folder)
        empty += not done
        missing = [i for i in range(count) if i not in committed_ids(folder)]
        ended(fork(die_at, rng.randint(1, 30), folder, f"w{number % 2}", missing))
        assert check(folder) >= done
        resume(folder, count, 1 + number % 3)
        assert check(folder) == set(range(count))
        assert identity(folder) == wanted
    return {"requests": total, "empty": empty}


def kill_at_random_moments(root, seed, kills=50, count=36):
    """Collections by two writers, killed and resumed by one, two or three in turn until everything is there."""
    os.fsync = lambda handle: None  # else nearly every moment is one of waiting for the disk
    rng, killed, sets, sizes = random.Random(seed), 0, 0, []
    wanted = uninterrupted(root / "wanted", count)
    begin = time.monotonic()
    ended(fork(collect, root / "timed", "w0", list(range(count))))
    span = time.monotonic() - begin
    while killed < kills:
        folder, done, turn = root / f"{sets}", set(), 0
        while len(done) < count:
            writers = 2 if turn == 0 else 1 + turn % 3
            missing = [i for i in range(count) if i not in done]
            pids = [fork(collect, folder, f"w{k}", missing[k::writers]) for k in range(writers)]
            time.sleep(rng.uniform(0, 0.7 * span / writers))
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            finished = [ended(pid) for pid in pids]
            killed += not all(finished)
            found = check(folder)
            assert found >= done, f"committed and lost: {done - found}"
            assert not all(finished) or len(found) == count
            done, turn = found, turn + 1
            sizes.append(len(done))
        assert identity(folder) == wanted
        sets += 1
    return {"kills": killed, "sets": sets, "between": sum(0 < size < count for size in sizes)}


def run(mode, tmp_path, seed=0):
    command = [sys.executable, "-W", "error", __file__, mode, str(tmp_path), str(seed)]
    root = str(Path(sys.modules["lewm"].__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="kill -9 is a thing of POSIX")


@pytest.mark.slow
@needs_fork
def test_kill_at_fifty_random_moments_costs_only_episodes_in_flight(tmp_path):
    found = run("moments", tmp_path)
    assert found["kills"] >= 50
    assert found["sets"] >= 3
    assert found["between"] >= 10  # else the kills came too early or too late to say anything


@pytest.mark.slow
@needs_fork
def test_kill_at_any_request_costs_only_episodes_in_flight(tmp_path):
    found = run("requests", tmp_path)
    assert found["requests"] > 60
    assert 10 < found["empty"] < found["requests"] - 20


if __name__ == "__main__":
    modes = {"moments": kill_at_random_moments, "requests": kill_at_every_request}
    print(json.dumps(modes[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))))
