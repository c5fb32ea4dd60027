"""TD-MPC2 files: without tensordict, and with actions moved to the observation they act at."""

import base64
import os
import sys
import types
import zlib

import numpy as np
import pytest
import torch

from lewm.data.formats.base import bounds_of
from lewm.data.formats.tdmpc2 import TDMPC2
from lewm.types import InputError

E, T = 2, 4  # episodes, rows
# torch.save(TensorDict) of tensordict 0.15.3: obs {state (episode, row), rgb a stack of 200, 100 and (episode, row,
# row + 1)}, action (episode, step), reward 10 episode + step, task 7; row 0 of action and reward is NaN
GOLDEN = (
    "c-o~_-*4Mg6u$Y{G$n1>pio%bY;@qlnmTdPCUm1|n4%$z60(7!Nyu_+6I*rS9p|PKLlZ-&o%RL@?UBEslaLT^ydd#5?SVJmcmWB)"
    "Ux38D{*l=3;<j+4Ti5rV?|k1mzW3ZT_*fjFR0<uj8FUtP3|&@wYqE&N+^t=`UYkKT{dO-ZVWrnMOj(m~PB0aDAYsku_0vLE+*JfD"
    "rvdp~$jlAv^(uKyL*y<*nbs5`6h>YUy9;rq6(h4oyAKH!sl+eIsAPVEX(h;fAB$Lll!OgaQggxpYdYaHmG(f>Wha!dS4hJo!?Y$W"
    "fMJRq1=2PoUDpi}U$-aIFx83>9~PdmNTpi?$ndimrr+lgALZkG^ghh+De`aRKFmIlBtzE~C(-vzSs{7b={&pAgfke<HsLudlG$m)"
    "^D5Dxy1cbdurj2bvuN}1f|_|Z8^Q1*;bSbqN%A*}VV>c?<d>-co-DugK&1pPV>s7@g@KiqAS-*Cq`=~iUB$MDB~|EacNAE1D6f;3"
    "G-PSq1314A7n<-&D`S;h7G$j}^u(^xhvl8Y0bFdttF0ti6Rq^%HCw!D7pMS?Y87V1Q<&G?!n|S2yM$r22{|i@soWM#8P<GJIABSX"
    "6o$ML<p2sKROA3SJ3<jdsR`>XvNaJF`@68=E8#o6(T6Kr5sOf<BfdF|xM@ecY)8C;;jJcY4b;UQbxCzfQQe2_Ce&0b@wc0BHP_%L"
    "Qa$b5wZ~C}=xB^R9&>2bJs!D_4YMm^VNWspq-6ElO7N77w>)M1{_kJEpjpr{o^c+Phm6i<7DQd^^twt9*K5U-lX`5uNCj-&hCfKQ"
    "C>knY7FAsVZL*0Cy6@|?%m0bjHC@A4SEz>lE5FUt9g_^zkU?ACuC&J1Yn%T^fIs@ZE$5%A^QeyI=+hm@nXgu<@=x^}-&7q?nDT^A"
    "dA?qYpqoE?O!k<IiVzF)q3cm%VLo&{Ml8&SuE&Xu^PxP)>4`WNrpH|m(?fk+J+!_b{&V3`max+iR^N-h`WEW7^XLTM|HselF>W8Y"
    ">rdYYRNwDEZ62Qf`*YU!A91_;ioR#J$z4Q7b(_XN{OH=}S+bZ#r^&x~qWtL%5;iFRFNq&^kLRC8%P#-05oV7Sz@;g}lW#j89N&Ky"
    "5I1aqR*HSa)JO-sBhs5n(Byh;?X<msWlN=eh0T{sT!H0E6?UV%!4@j(rBZpL#BurZdZkn@uvVM?>mgHMhz`b58KGi_I=z?1%n{{*"
    "-%&xZxBt)ifJ-qn=9US@@V4-IUyQFjF^=3D!7$z~JnIW{CXSAD{~+4i2{S(Q!#MKy?I6^9$o<ep!Vk>{q2BZ7haM*V&_WREJz4?Q"
    "2|ttzLcOOVz#4!SgHZ2wpY}o76bc-oAlADH7kt>SN7$zyj|QJiUUHllW2-~pRN(nt)P9yHol@{g+6vI0j)VO(C6Tl-Q<lH&`!AW;"
    "&u{"
)


def episodes(shape=(E, T), first=0):
    number = first + torch.arange(shape[0])[:, None].expand(shape).float()
    row = torch.arange(shape[1]).expand(shape).float()
    action, reward = torch.stack([number, row - 1], -1), 10 * number + row - 1
    action[:, 0], reward[:, 0] = torch.nan, torch.nan
    return {"obs": torch.stack([number, row, 0 * row], -1), "action": action, "reward": reward}


def check(episode, number, rows=T):
    assert episode.steps == rows - 1
    assert episode.columns["action"].tolist() == [[number, step] for step in range(rows - 1)]
    assert episode.columns["reward"].tolist() == [10 * number + step for step in range(rows - 1)]


def test_a_file_of_the_real_tensordict(tmp_path):
    path = tmp_path / "buffer.pt"
    path.write_bytes(zlib.decompress(base64.b85decode("".join(GOLDEN))))
    assert "tensordict" not in sys.modules
    source = TDMPC2.open(path)
    assert TDMPC2.detect(path) and len(source) == E
    assert {name: (c.dtype, c.shape, c.transition) for name, c in source.columns.items()} == {
        "state": ("float32", (2,), False),
        "pixels": ("uint8", (2, 2, 3), False),
        "action": ("float32", (2,), True),
        "reward": ("float32", (), True),
    }
    for number, episode in enumerate(source.episodes()):
        check(episode, number)
        assert (episode.id, episode.facts) == (number, {"file": "buffer.pt", "task": 7})
        assert episode.columns["state"].tolist() == [[number, row] for row in range(T)]
        assert episode.columns["pixels"][:, 1, 0].tolist() == [[number, row, row + 1] for row in range(T)]
    low, high = bounds_of(source.actions())
    assert (low.tolist(), high.tolist()) == ([0, 0], [1, 2]) and source.action_bounds() is None


@pytest.mark.parametrize("slots", [False, True])
def test_a_file_of_an_old_tensordict(tmp_path, monkeypatch, slots):
    """Before 0.3 the class was tensordict.tensordict.TensorDict, pickled by its attributes: mt30 and mt80."""
    names = ("_tensordict", "_batch_size", "_device")
    kind = type("TensorDict", (), {"__module__": "tensordict.tensordict"} | ({"__slots__": names} if slots else {}))
    module = types.ModuleType("tensordict.tensordict")
    module.TensorDict = kind
    monkeypatch.setitem(sys.modules, "tensordict", types.ModuleType("tensordict"))
    monkeypatch.setitem(sys.modules, "tensordict.tensordict", module)
    held = kind()
    for name, value in zip(names, (episodes(), torch.Size((E, T)), torch.device("cpu")), strict=True):
        setattr(held, name, value)
    torch.save(held, tmp_path / "old.pt")
    monkeypatch.undo()
    source = TDMPC2.open(tmp_path / "old.pt")
    for number, episode in enumerate(source.episodes()):
        check(episode, number)
        assert episode.columns["observation"].tolist() == [[number, row, 0] for row in range(T)]


def test_a_folder_of_files(tmp_path):
    for file in range(3):
        torch.save(episodes(first=2 * file), tmp_path / f"chunk_{file}.pt")
    source = TDMPC2.open(tmp_path)
    assert TDMPC2.detect(tmp_path) and len(source) == 6
    for position, episode in enumerate(source.episodes()):
        check(episode, position)
        assert (episode.id, episode.facts["file"]) == (position, f"chunk_{position // 2}.pt")
    (tmp_path / "chunk_0.pt").unlink()  # what comes before `first` is not opened again
    assert [episode.id for episode in source.episodes(3)] == [3, 4, 5]


def test_terminated_and_stacked_frames(tmp_path):
    held = episodes()
    row = torch.arange(T).expand(E, T)
    held["terminated"] = row == T - 1
    held["obs"] = torch.cat(
        [torch.zeros(E, T, 6, 3, 5), row[..., None, None, None].expand(E, T, 3, 3, 5)], 2
    ).byte()
    torch.save(held, tmp_path / "a.pt")
    source = TDMPC2.open(tmp_path / "a.pt")
    assert source.columns["pixels"].shape == (3, 5, 3) and source.columns["pixels"].compressed
    for episode in source.episodes():
        assert episode.columns["terminated"].tolist() == [False, False, True]
        assert [set(np.unique(frame)) for frame in episode.columns["pixels"]] == [{0}, {1}, {2}, {3}]


def test_one_episode_by_itself(tmp_path):
    torch.save({name: values[1] for name, values in episodes().items()}, tmp_path / "a.pt")
    (episode,) = TDMPC2.open(tmp_path / "a.pt").episodes()
    check(episode, 1)


class Bomb:
    """Its pickle makes a folder when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def halved(path):
    torch.save(episodes(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def unshifted():
    held = episodes()
    return {**held, "action": torch.ones(E, T, 2), "reward": torch.ones(E, T)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (halved, r"a.pt cannot be loaded safely"),
        (lambda p: torch.save(Bomb(p.parent / "ran"), p), r"a.pt cannot be loaded safely"),
        (lambda p: torch.save(torch.zeros(3), p), r"holds a Tensor, expected a TensorDict"),
        (lambda p: torch.save({}, p), r"has no 'action', only nothing"),
        (lambda p: torch.save({k: v for k, v in episodes().items() if k != "obs"}, p), r"has no 'obs'"),
        (
            lambda p: torch.save(episodes() | {"task": torch.zeros(E, 3)}, p),
            r"'task' is \(2, 3\), 'action' \(2, 4\)",
        ),
        (lambda p: torch.save(episodes((E, 1)), p), r"needs 2 rows or more"),
        (lambda p: torch.save(episodes() | {"action": torch.zeros(E, T, 2).int()}, p), r"expected floats"),
        (lambda p: torch.save(unshifted(), p), r"a.pt, episode 0: row 0 has an action"),
        (
            lambda p: torch.save(episodes() | {"task": torch.arange(E * T).reshape(E, T)}, p),
            r"episode 0: has tasks",
        ),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, make, message):
    make(tmp_path / "a.pt")
    with pytest.raises(InputError, match=message):
        list(TDMPC2.open(tmp_path / "a.pt").episodes())
    assert not (tmp_path / "ran").exists()


def test_files_of_other_columns(tmp_path):
    torch.save(episodes(), tmp_path / "a.pt")
    torch.save(episodes() | {"action": torch.zeros(E, T, 5)}, tmp_path / "b.pt")
    with pytest.raises(InputError, match=r"b.pt holds other columns than a.pt"):
        TDMPC2.open(tmp_path)


def test_detect_never_raises(tmp_path):
    assert not TDMPC2.detect(tmp_path) and not TDMPC2.detect(tmp_path / "absent.pt")
    with pytest.raises(InputError, match=r"holds no .pt file"):
        TDMPC2.open(tmp_path)
    (tmp_path / "a.pt").write_bytes(b"PK")
    assert not TDMPC2.detect(tmp_path)
    torch.save({"weights": torch.zeros(3)}, tmp_path / "a.pt")
    assert not TDMPC2.detect(tmp_path)
