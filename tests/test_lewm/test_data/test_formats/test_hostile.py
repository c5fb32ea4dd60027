"""Files that lie: each piece of a format's metadata replaced by nonsense is an InputError or a sound episode."""

import copy
import io
import json
import shutil
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import zarr

from lewm.data.formats import known_formats
from lewm.data.formats.base import bounds_of
from lewm.data.formats.common import check_size, guarded
from lewm.data.formats.minari import Minari
from lewm.data.formats.swm_hdf5 import SwmHdf5
from lewm.types import InputError

GOLDEN = Path(__file__).parent / "golden"
VALUES = [None, -1, 10**12, 1e300, float("nan"), "", "{foo}", "../" * 9, [], [64, 64], [-1, 10**9], {"a": 1}]
HUGE = 10**11


def read(name, path):
    """Whether a set is read to its end; what comes out is sound, what does not names the file and the episode."""
    form = known_formats()[name]
    form.detect(path)
    try:
        source = form.open(path)
    except InputError:
        return False
    position = 0
    try:
        for episode in source.episodes():
            assert episode.id == position and set(episode.columns) == set(source.columns)
            for key, column in source.columns.items():
                rows = episode.columns[key]
                assert rows.shape == (episode.steps + (not column.transition), *column.shape), key
                assert rows.dtype == np.dtype(column.dtype), key
            position += 1
    except InputError as error:
        assert str(path) in str(error) and f"episode {position}" in str(error), error
        return False
    try:
        bounds_of(source.actions())
        source.action_bounds()
    except InputError:
        return False
    return True


def mutants(record, at=()):
    """Copies of a JSON record, each with one value replaced or gone."""
    inner = record
    for key in at:
        inner = inner[key]
    keys = list(inner) if isinstance(inner, dict) else range(min(len(inner), 2)) if isinstance(inner, list) else ()
    for key in keys:
        for value in [*VALUES, "gone"]:
            changed = copy.deepcopy(record)
            holder = changed
            for step in at:
                holder = holder[step]
            if value == "gone":
                del holder[key]
            else:
                holder[key] = value
            yield changed
        yield from mutants(record, (*at, key))


def fuzz(name, root, file, *texts, every=1):
    """Read the set with mutants of a JSON file, and of the JSON texts in it: `every` takes only some, for time."""
    record = json.loads(file.read_text())
    assert read(name, root)
    changed = list(mutants(record))
    changed += [record | {key: json.dumps(inner)} for key in texts for inner in mutants(json.loads(record[key]))]
    for mutant in changed[::every]:
        file.write_text(json.dumps(mutant))
        read(name, root)
    file.write_text(json.dumps(record))
    assert read(name, root)


@pytest.mark.slow
def test_lerobot_info(tmp_path):
    shutil.unpack_archive(GOLDEN / "lerobot.zip", tmp_path)
    fuzz("lerobot", tmp_path, tmp_path / "meta/info.json", every=6)  # prime to 13, so each place gets its turn


@pytest.mark.parametrize("layout", ["hdf5", "parquet"])
def test_minari_metadata(tmp_path, layout):
    root = Path(shutil.copytree(GOLDEN / "minari" / f"{layout}-v0", tmp_path / "set"))
    fuzz("minari", root, root / "data/metadata.json", "observation_space", "action_space", every=3)


def test_zarr_metadata(tmp_path):
    path = tmp_path / "a.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=2)
    for name, width in (("state", 3), ("action", 2)):
        group.create_array(f"data/{name}", data=np.ones((9, width), np.float32), chunks=(4, width))
    group.create_array("meta/episode_ends", data=np.array([4, 9]))
    for name in ("data/state", "data/action", "meta/episode_ends"):
        fuzz("diffusion_policy", path, path / name / ".zarray", every=3)


def nonsense(rows):
    """What an array of a file may turn out to be."""
    n, shape = len(rows), rows.shape
    yield from (np.float64(3), np.zeros(0), np.zeros((n, 0)), np.zeros(n), rows[:1], rows[:-1])
    yield from (np.full(shape, value) for value in (np.nan, np.inf, -1, 2**63 - 1, True, 1j))
    yield from (np.array([b"x"] * n), np.zeros((n, 2, 3, 4), np.uint8), np.zeros(n, [("a", "f4")]))


def replaced(path, original, name, make):
    path.write_bytes(original)
    with h5py.File(path, "a") as file:
        rows = file[name]
        shape, dtype = rows.shape, rows.dtype
        del file[name]
        make(file, shape, dtype)


def hdf5_lies(path, names):
    """The file with each of these arrays replaced, gone, a group, outside, or of more rows than anything holds."""
    original = path.read_bytes()
    for name in names:
        with h5py.File(path) as file:
            rows = file[name][()]
        made = [lambda f, s, d, v=values, n=name: f.create_dataset(n, data=v) for values in nonsense(rows)]
        made += [
            lambda f, s, d: None,
            lambda f, s, d, n=name: f.create_group(n),
            lambda f, s, d, n=name: f.__setitem__(n, h5py.SoftLink("/nowhere")),
            lambda f, s, d, n=name: f.create_dataset(n, (HUGE, *s[1:]), d, chunks=True),
            lambda f, s, d, n=name: f.create_dataset(n, (2_000_000, 64, 64, 3), "u1", chunks=True),
        ]
        for make in made:
            replaced(path, original, name, make)
            yield name
        path.write_bytes(original)


def test_swm_hdf5_arrays(tmp_path):
    path = Path(shutil.copy(GOLDEN / "swm.h5", tmp_path / "a.h5"))
    assert read("swm_hdf5", path)
    for _ in hdf5_lies(path, ["action", "ep_len", "ep_offset", "pixels", "reward"]):
        read("swm_hdf5", path)


def test_minari_arrays(tmp_path):
    root = Path(shutil.copytree(GOLDEN / "minari/hdf5-v0", tmp_path / "set"))
    for _ in hdf5_lies(root / "data/main_data.hdf5", [f"episode_{e}/rewards" for e in range(2)]):
        read("minari", root)


def test_d4rl_arrays(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["observations"], file["actions"], file["terminals"] = (
            np.ones((9, 2)),
            np.ones((9, 1)),
            np.arange(9) == 4,
        )
    assert read("d4rl", path)
    for _ in hdf5_lies(path, ["actions", "terminals", "observations"]):
        read("d4rl", path)


def test_a_small_hdf5_file_that_claims_a_huge_episode(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("pixels", (2_000_000, 224, 224, 3), "u1", chunks=(1, 224, 224, 3))
        file.create_dataset("action", (2_000_000, 2), "f4", chunks=True)
        file["ep_len"] = [2_000_000]
    with pytest.raises(InputError, match=r"a\.h5, episode 0: column '/pixels' claims"):
        next(SwmHdf5.open(path).episodes())
    with h5py.File(path, "a") as file:
        del file["ep_len"]
        file.create_dataset("ep_len", (HUGE,), "i4", chunks=True)
    with pytest.raises(InputError, match=r"a\.h5: column '/ep_len' claims"):
        SwmHdf5.open(path)


def test_hdf5_rows_that_lie_in_another_file_are_not_read(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" * 20)
    path = Path(shutil.copy(GOLDEN / "swm.h5", tmp_path / "a.h5"))

    def outside(file, shape, dtype):
        file.create_dataset("count", shape, dtype, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])

    replaced(path, path.read_bytes(), "count", outside)
    with pytest.raises(InputError, match="episode 0: column '/count' lies outside the file"):
        next(SwmHdf5.open(path).episodes())


@pytest.mark.parametrize("name", ["observations", "actions", "terminals"])
def test_ogbench_headers(tmp_path, name):
    path = tmp_path / "a.npz"
    base = {"observations": np.ones((11, 2)), "actions": np.ones((11, 1)), "terminals": np.arange(11) == 5}
    kinds = ["'<f4'", "'|O'", "'<U3'", "'<c16'", "'foo'", "[('a', '<f4')]"]
    shapes = [
        "(11, 2)",
        "(-1, 2)",
        "()",
        "(100000000000, 2)",
        "(11, -2)",
        "(11, 0)",
        "(2.5,)",
        "(11, 99999999999, 9)",
    ]
    headers = [f"{{'descr': {k}, 'fortran_order': False, 'shape': {s}}}" for k in kinds for s in shapes]
    for header in [*headers, "{", "[]", "{'descr': '<f4'}"]:
        text = header.encode().ljust(117) + b"\n"
        with zipfile.ZipFile(path, "w") as archive:
            for key, rows in base.items():
                held = io.BytesIO()
                np.save(held, rows)
                lie = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(800)
                archive.writestr(f"{key}.npy", lie if key == name else held.getvalue())
        read("ogbench", path)


@pytest.mark.parametrize("key", ["obs", "action", "reward", "task"])
def test_tdmpc2_tensors(tmp_path, key):
    path, zero = tmp_path / "a.pt", torch.zeros(1)
    good = {"obs": torch.ones(2, 4, 3), "action": torch.ones(2, 4, 2), "reward": torch.full((2, 4), torch.nan)}
    torch.save(good, path)
    assert read("tdmpc2", path)
    for lie in (
        torch.tensor(3.0), torch.zeros(0), torch.zeros(2), torch.zeros(2, 4, 0), torch.full((2, 4), torch.nan),
        torch.zeros(2, 4, 2, dtype=torch.bfloat16), torch.zeros(2, 4, 2, dtype=torch.complex64),
        torch.zeros(2, 4, 2).to_sparse(), torch.zeros(2, 4, 2, requires_grad=True),
        zero.expand(2, 4, HUGE), zero.expand(10**9, 4, 2), "x", None, {1: zero},
        torch.zeros(2, 4, 2, 3, 3, dtype=torch.uint8),
    ):  # fmt: skip
        torch.save(good | {key: lie}, path)
        read("tdmpc2", path)
        torch.save(dict.fromkeys(good, lie), path)
        read("tdmpc2", path)


@pytest.mark.parametrize(
    "error", [MemoryError(), OverflowError(), ZeroDivisionError(), RecursionError(), EOFError()]
)
def test_whatever_a_library_raises_is_named(error):
    with (
        pytest.raises(InputError, match=rf"a\.h5, episode 3 cannot be read \({type(error).__name__}"),
        guarded("a.h5, episode 3"),
    ):
        raise error


def test_an_error_that_does_not_name_the_episode_gets_its_name():
    with pytest.raises(InputError, match=r"^set, episode 3: set/v\.mp4 is missing$"), guarded("set, episode 3"):
        raise InputError("set/v.mp4 is missing")
    with pytest.raises(InputError, match=r"^set, episode 3: torn$"), guarded("set, episode 3"):
        raise InputError("set, episode 3: torn")


def test_more_than_memory_or_than_is_stored_is_refused():
    check_size(1 << 20, "a", 0)
    check_size(1 << 28, "a", 1 << 20)
    for wanted, stored in ((1 << 60, None), (1 << 60, 1 << 50), (1 << 28, 10)):
        with pytest.raises(InputError, match="a claims"):
            check_size(wanted, "a", stored)


def test_a_minari_image_bomb_is_an_error(tmp_path):
    from PIL import Image

    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    root = Path(shutil.copytree(GOLDEN / "minari/hdf5-images-v0", tmp_path / "set"))
    with h5py.File(root / "data/main_data.hdf5", "a") as held:
        held["episode_1/observations/camera"][2] = np.frombuffer(file.getvalue(), np.uint8)
    with pytest.raises(InputError, match=r"episode 1: observations/camera: image 2 .*decompression bomb"):
        list(Minari.open(root).episodes())
