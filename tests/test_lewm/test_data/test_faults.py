"""Damage: every flipped byte is found, files that are short, gone or full; and what is intact is still read."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lewm.data import Column, DatasetInfo, EpisodeReader, EpisodeWriter
from lewm.data.log import parse_log
from lewm.types import Episode, InputError

FILES = ["pixels.bin", "pixels.idx", "state.bin", "action.bin"]
IDS = (10, 20, 30)


@pytest.fixture
def tiny(tmp_path, make_episode, write_set):
    """A folder and its three episodes, of two steps each."""
    episodes = {i: make_episode(i, 2, facts={"n": i}) for i in IDS}
    write_set(tmp_path / "set", episodes.values())
    return tmp_path / "set", episodes


def flips(path, every=1):
    """Damage one byte after the other: yields its offset while it is damaged."""
    whole = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        for offset in range(0, len(whole), every):
            file.seek(offset)
            file.write(bytes([whole[offset] ^ (0x01, 0x80, 0xFF, 0x07)[offset // every % 4]]))
            yield offset
            file.seek(offset)
            file.write(whole[offset : offset + 1])


def owners(folder, file):
    """Offset in a column file -> id of the episode it belongs to."""
    name, _, kind = file.rpartition(".")
    info, owner = DatasetInfo.read(folder), {}
    (log,) = folder.glob("*.jsonl")
    for commit, _ in parse_log(log):
        row, begin, end = commit.columns[name][:3]
        if kind == "idx":
            begin, end = row * 16, (row + info.columns[name].rows(commit.steps)) * 16
        owner |= dict.fromkeys(range(begin, end), commit.id)
    return owner


def check_all_but(folder, damaged, episodes, equal):
    """What a flipped byte in an episode's rows must do, and to nothing else."""
    reader = EpisodeReader(folder)
    assert {fault.episode for fault in reader.verify()} == {damaged}
    for position, number in enumerate(IDS[: len(episodes)]):
        if number == damaged:
            with pytest.raises(InputError, match=rf"shards.*episode {damaged}\b"):
                reader.episode(position)
        else:
            assert equal(reader.episode(position), episodes[number])


@pytest.mark.parametrize("file", FILES)
def test_every_flipped_byte_of_every_column_file_is_laid_to_its_episode(tiny, equal, file):
    folder, episodes = tiny
    path, owner = folder / "shards" / "w0000-0" / file, owners(folder, file)
    assert len(owner) == path.stat().st_size
    for offset in flips(path):
        check_all_but(folder, owner[offset], episodes, equal)
    assert list(EpisodeReader(folder).verify()) == []


def test_every_flipped_byte_of_a_jpeg_is_laid_to_its_episode(tmp_path, make_info, make_episode, write_set, equal):
    info = make_info(codec="jpeg:50")
    reader = write_set(tmp_path, [make_episode(i, 1) for i in IDS[:2]], info)
    episodes = {i: reader.episode(k) for k, i in enumerate(IDS[:2])}
    path, owner = tmp_path / "shards" / "w0000-0" / "pixels.bin", owners(tmp_path, "pixels.bin")
    for offset in flips(path, every=7):
        check_all_but(tmp_path, owner[offset], episodes, equal)


def test_every_flipped_byte_of_the_log_is_named(tiny, make_info, equal):
    folder, episodes = tiny
    (log,) = folder.glob("*.jsonl")
    ends = np.cumsum([len(line) for line in log.read_bytes().splitlines(keepends=True)])
    for offset in flips(log):
        line = int(np.searchsorted(ends, offset, side="right"))
        with pytest.raises(InputError, match=rf"{log.name} line {line + 1}\b"):
            EpisodeReader(folder)
        reader = EpisodeReader(folder, skip_damaged=True)
        # a newline holds two lines apart: without it, the line behind it is lost with the line before it
        lost = IDS[line : line + 2] if offset + 1 in ends else IDS[line : line + 1]
        assert reader.ids.tolist() == [i for i in IDS if i not in lost]
        assert all(equal(reader.episode(k), episodes[i]) for k, i in enumerate(reader.ids.tolist()))
        assert len(list(reader.verify())) == 1
        if offset % 10 == 0:
            with pytest.raises(InputError, match=log.name):
                EpisodeWriter(folder, make_info())


def test_every_flipped_byte_of_the_description_is_named_or_means_nothing(tiny, equal):
    """White space may become other white space."""
    folder, episodes = tiny
    path = folder / "dataset.json"
    record, harmless = json.loads(path.read_text()), 0
    for offset in flips(path):
        try:
            reader = EpisodeReader(folder)
        except InputError as error:
            assert "dataset.json" in str(error)
        else:
            harmless += 1
            assert json.loads(path.read_text()) == record, offset
            assert equal(reader.episode(0), episodes[10])
    assert harmless < len(path.read_bytes()) / 20


@pytest.mark.parametrize("skip_damaged", [False, True])
@pytest.mark.parametrize("file", FILES)
def test_files_cut_short_at_any_length(tiny, equal, snapshot, file, skip_damaged):
    folder, episodes = tiny
    path, owner = folder / "shards" / "w0000-0" / file, owners(folder, file)
    whole = path.read_bytes()
    for size in range(0, len(whole), 5):
        path.write_bytes(whole[:size])
        lost = sorted({i for offset, i in owner.items() if offset >= size})
        if not skip_damaged or len(lost) == len(IDS):
            with pytest.raises(InputError, match=rf"{file} is cut short.*episode {lost[0]}\b|no committed episode"):
                EpisodeReader(folder, skip_damaged=skip_damaged)
        else:
            reader = EpisodeReader(folder, skip_damaged=True)
            assert reader.ids.tolist() == [i for i in IDS if i not in lost]
            assert [fault.episode for fault in reader.verify()] == lost
            assert all(file in fault.text and "cut short" in fault.text for fault in reader.faults)
            assert all(equal(reader.episode(k), episodes[i]) for k, i in enumerate(reader.ids.tolist()))
            for cache in ("ram", "compressed"):
                again = EpisodeReader(folder, cache=cache, skip_damaged=True)
                assert all(equal(again.episode(k), reader.episode(k)) for k in range(len(reader)))
    path.write_bytes(whole)
    assert EpisodeReader(folder).ids.tolist() == list(IDS)


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_named(tiny, snapshot, file):
    folder, _ = tiny
    (folder / "shards" / "w0000-0" / file).unlink()
    before = snapshot(folder)
    with pytest.raises(InputError, match=rf"{file} is missing: episode 10"):
        EpisodeReader(folder)
    with pytest.raises(InputError, match=rf"{file} is missing"):  # and nothing is left
        EpisodeReader(folder, skip_damaged=True)
    assert snapshot(folder) == before


def test_a_missing_shard_costs_its_episodes_only(tmp_path, make_episode, write_set, matches):
    episodes = [make_episode(i) for i in range(4)]
    shard = {}
    write_set(tmp_path, episodes, shard_bytes=1)
    for commit, _ in parse_log(tmp_path / "episodes-w0000.jsonl"):
        shard.setdefault(commit.shard, []).append(commit.id)
    assert len(shard) > 2
    gone, lost = list(shard.items())[1]
    shutil.rmtree(tmp_path / "shards" / gone)
    with pytest.raises(InputError, match=rf"{gone}/\S+ is missing: episode {lost[0]}\b"):
        EpisodeReader(tmp_path)
    reader = EpisodeReader(tmp_path, skip_damaged=True)
    assert reader.ids.tolist() == [i for i in range(4) if i not in lost]
    assert [fault.episode for fault in reader.faults] == lost
    assert all(matches(reader, k, episodes[i]) for k, i in enumerate(reader.ids.tolist()))


def test_a_set_without_episodes(tmp_path, make_info, snapshot):
    EpisodeWriter(tmp_path, make_info()).close()
    before = snapshot(tmp_path)
    for skip in (False, True):
        with pytest.raises(InputError, match="no committed episode"):
            EpisodeReader(tmp_path, skip_damaged=skip)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("cache", ["none", "compressed", "ram"])
def test_a_damaged_frame_is_named_with_its_episode(tmp_path, make_episode, write_set, cache):
    write_set(tmp_path, [make_episode(3), make_episode(6)])
    path = tmp_path / "shards" / "w0000-0" / "pixels.bin"
    begin = owners(tmp_path, "pixels.bin")
    first = next(offset for offset, number in begin.items() if number == 6)
    data = bytearray(path.read_bytes())
    data[first : first + 4] = b"\0\0\0\0"  # the magic number of its first frame
    path.write_bytes(data)
    reader = EpisodeReader(tmp_path, cache=cache)
    with pytest.raises(InputError, match=r"pixels\.bin: row (0 of episode 6|7) is damaged"):
        reader.gather("pixels", np.array([1]), np.array([0]))


def test_no_flipped_bit_of_a_frame_changes_what_is_read(tmp_path, make_episode, write_set):
    """Training reads frames by themselves: each is right or an error."""
    reader = write_set(tmp_path, [make_episode(5, 2)])
    right = reader.column("pixels", 0).copy()
    path = tmp_path / "shards" / "w0000-0" / "pixels.bin"
    whole, index = path.read_bytes(), np.arange(3)
    for bit in range(8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        for row in index:
            try:
                assert np.array_equal(
                    reader.gather("pixels", np.zeros(1, int), index[row : row + 1])[0], right[row]
                )
            except InputError as error:
                assert f"pixels.bin: row {row} of episode 5 is damaged" in str(error)


# Disks that are full

BIG = DatasetInfo({"action": Column("float32", (250,))}, (-9.0,) * 250, (9.0,) * 250, {"env": "stub"})


def big(number):
    return Episode(number, {"action": np.random.default_rng(number).random((3, 250), np.float32)}, {"n": number})


def fill(folder, free):
    """Commit until there is no space, make some, go on with the same writer; nothing may be lost or doubled."""
    committed, errors = [], 0
    with EpisodeWriter(folder, BIG) as writer:
        for first in range(0, 10**5, 3):
            group = [big(i) for i in range(first, first + 3)]
            try:
                writer.commit(group)
            except OSError as error:
                errors += 1
                assert error.errno in (errno.ENOSPC, errno.EFBIG), error
                assert Path(error.filename).is_relative_to(folder), error.filename
                assert f"episodes {first} to {first + 2}" in str(error)
                reader = EpisodeReader(folder)
                assert reader.ids.tolist() == committed
                assert list(reader.verify()) == []
                free()
                writer.commit(group)
            committed += [episode.id for episode in group]
            if errors and len(committed) % 5 == 0:
                break
    assert errors == 1
    reader = EpisodeReader(folder)
    assert reader.ids.tolist() == committed
    assert list(reader.verify()) == []
    for position, number in enumerate(committed):
        assert reader.column("action", position).tobytes() == big(number).columns["action"].tobytes()


def fill_a_limited_file(folder):
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    fill(folder, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2))


def fill_a_small_disk(folder):
    """In a mount namespace of its own, that ends with this process."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], check=True)
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(100_000))
    fill(folder / "set", ballast.unlink)
    (folder / "set").rename(folder / "moved")  # it is a real file system, with all of the set in it
    assert sum(path.stat().st_size for path in (folder / "moved").rglob("*") if path.is_file()) > 150_000


def run(mode, folder, prefix=()):
    root = str(Path(sys.modules["lewm"].__file__).parents[1])
    command = [*prefix, "env", f"PYTHONPATH={root}", "OMP_NUM_THREADS=1", sys.executable, "-W", "error", __file__]
    return subprocess.run([*command, mode, str(folder)], capture_output=True, text=True, timeout=120)


def test_a_file_that_may_not_grow_costs_nothing(tmp_path):
    done = run("limit", tmp_path / "set")
    assert done.returncode == 0, done.stderr


def test_a_full_disk_costs_nothing(tmp_path):
    """A real one, of 256 kB. It takes the right to mount; where CI is, that must be there."""
    ways = [["unshare", "--mount"], ["unshare", "--map-root-user", "--mount"], ["sudo", "-n", "unshare", "--mount"]]
    there = [way for way in ways if shutil.which(way[0]) and may_mount(way, tmp_path)]
    if not there:
        if os.environ.get("CI"):
            pytest.fail("no way to mount a small tmpfs was found; allow user namespaces, or sudo, on this machine")
        pytest.skip("mounting needs user namespaces or root (test_crash.py plays full disks without)")
    done = run("disk", tmp_path / "disk", there[0])
    assert done.returncode == 0, done.stderr


def may_mount(way, folder):
    command = [*way, "mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, timeout=20).returncode == 0


if __name__ == "__main__":
    {"limit": fill_a_limited_file, "disk": fill_a_small_disk}[sys.argv[1]](Path(sys.argv[2]))


def test_a_lost_log_is_a_fault_and_so_are_bytes_no_kill_explains(tmp_path, make_info, make_episode, write_set):
    write_set(tmp_path, [make_episode(i) for i in range(2)], writer="a")
    write_set(tmp_path, [make_episode(i) for i in range(2, 6)], writer="b", shard_bytes=1)
    log = tmp_path / "episodes-b.jsonl"
    whole = log.read_bytes()
    log.unlink()
    faults = list(EpisodeReader(tmp_path).verify())
    assert len(faults) == 4 and all("episodes-b.jsonl, is missing" in fault.text for fault in faults)
    log.write_bytes(b"".join(whole.splitlines(keepends=True)[:1]))  # cut at the end of a line
    texts = [fault.text for fault in EpisodeReader(tmp_path).verify()]
    assert len(texts) == 2 and "b-2" in texts[0] and "b-3" in texts[1]
    with pytest.raises(InputError, match=r"episodes-b\.jsonl has lost lines"):
        EpisodeWriter(tmp_path, make_info(), writer="b")
    log.write_bytes(whole)
    assert not list(EpisodeReader(tmp_path).verify())


def test_one_damaged_line_is_said_also_where_it_is_all_there_is(tmp_path, make_episode, write_set):
    write_set(tmp_path, [make_episode(0)])
    log = tmp_path / "episodes-w0000.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"id":0', b'"id":1'))
    for skip in (False, True):
        with pytest.raises(InputError, match=r"episodes-w0000\.jsonl line 1 .* is damaged"):
            EpisodeReader(tmp_path, skip_damaged=skip)


def test_foreign_files_in_the_folders_are_no_matter(tmp_path, make_episode, write_set):
    write_set(tmp_path, [make_episode(0)])
    (tmp_path / "shards/.DS_Store").write_bytes(b"x")
    (tmp_path / "shards/w0000-0/.DS_Store").write_bytes(b"x")
    reader = EpisodeReader(tmp_path)
    assert not list(reader.verify()) and not reader.leftovers()


def test_a_writer_s_name_may_begin_like_another_s(tmp_path, make_info, make_episode, write_set):
    write_set(tmp_path, [make_episode(0)], writer="arm-2")
    assert len(write_set(tmp_path, [make_episode(1)], writer="arm")) == 2


@pytest.mark.parametrize("codec", ["zstd:1", "jpeg:90"])
@pytest.mark.parametrize("cache", ["none", "compressed", "ram"])
def test_a_flipped_bit_of_an_image_is_found_when_it_is_read(
    tmp_path, make_info, make_episode, write_set, change, codec, cache
):
    """While training, not by `verify` years later; every bit of one frame in turn."""
    info = make_info(pixels=Column("uint8", (8, 8, 3), codec=codec))
    frames = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8) // 64
    reader = write_set(tmp_path, [change(make_episode(0, steps=2), pixels=frames)], info)
    whole = reader.column("pixels", 0)
    path = tmp_path / "shards/w0000-0/pixels.bin"
    begin, end = (int(n) for n in np.fromfile(path.with_suffix(".idx"), "<u8")[[0, 2]])
    stored = path.read_bytes()
    for bit in range(8 * begin, 8 * end, 7):
        data = bytearray(stored)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        reader = EpisodeReader(tmp_path, cache=cache)
        with pytest.raises(InputError, match="row 1 of episode 0 is damaged"):
            reader.gather("pixels", np.zeros(3, int), np.arange(3))
        assert np.array_equal(reader.gather("pixels", np.zeros(2, int), np.array([0, 2])), whole[[0, 2]])
