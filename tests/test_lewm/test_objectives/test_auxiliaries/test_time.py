"""Reachability and distance in blocks: by hand, perfect heads, and a chain that is learned."""

import math

import pytest
import torch

from lewm import registry


def bce(logit, label):
    p = 1 / (1 + math.exp(-logit.item()))
    return -math.log(p if label else 1 - p)


@pytest.mark.parametrize("episodes", [None, [0, 1, 2], [0, 0, 1]])
@pytest.mark.parametrize("predicted", [0.0, 0.5])
def test_reachability_by_hand(make, episodes, predicted):
    term = registry.build(
        "auxiliary", {"name": "reachability", "horizon": 2, "hard_weight": 0.7, "predicted": predicted}
    )
    facts = {} if episodes is None else {"episodes_B": torch.tensor(episodes)}
    batch = make.encoded(rows=3, heads=make.heads(term), **facts)
    value = term(batch)
    shift = int(torch.randint(1, 3, (), generator=torch.Generator().manual_seed(5)))
    head, z = batch.heads["reachability"], batch.z_BTD
    imagined = torch.cat([z[:, :1], batch.predicted_BLD], dim=1)
    total = 0.0
    for sources, weight in ((z, 1.0), (imagined, predicted)):
        positive, hard, cross = [], [], []
        for b in range(3):
            other = (b - shift) % 3
            for i in range(4):
                for j in range(i + 1, 4):
                    for h in (1, 2):
                        logit = head(sources[b, i], z[b, j])[h - 1]
                        (positive if h >= j - i else hard).append(bce(logit, h >= j - i))
                        if episodes is None or episodes[b] != episodes[other]:
                            cross.append(bce(head(sources[b, i], z[other, j])[h - 1], False))
        means = [sum(x) / len(x) for x in (positive, cross, hard)]
        total += weight * 0.5 * (means[0] + (means[1] + 0.7 * means[2]) / 1.7)
    assert value.item() == pytest.approx(total, rel=1e-10)


def test_windows_of_one_episode_are_no_negatives_of_each_other(make):
    term = registry.build("auxiliary", {"name": "reachability"})
    heads = make.heads(term)
    batch = make.encoded(rows=2, heads=heads, episodes_B=torch.tensor([3, 3]))
    one, z = term(batch), batch.z_BTD
    alone = [
        term(make.encoded(rows=1, heads=heads, z_BTD=z[b : b + 1], actions_BLE=batch.actions_BLE[b : b + 1]))
        for b in range(2)
    ]
    torch.testing.assert_close(one, torch.stack(alone).mean())


@pytest.mark.parametrize("name", ["reachability", "temporal_distance"])
def test_detached_teaches_the_head_and_leaves_the_latents(make, name):
    term = registry.build("auxiliary", {"name": name, "attached": False})
    batch = make.encoded(heads=make.heads(term))
    term(batch).backward()
    assert batch.z_BTD.grad is None
    assert all(p.grad.abs().max() > 0 for head in batch.heads.values() for p in head.parameters())


def test_heads_learn_two_chains(make):
    """R knows which place is within which budget and that no way leads across, m how many places lie between."""
    terms = [
        registry.build("auxiliary", {"name": "reachability", "horizon": 3, "hidden": 64, "predicted": 0.0}),
        registry.build("auxiliary", {"name": "temporal_distance", "hidden": 64}),
    ]
    codes = torch.zeros(2, 8, make.D, dtype=torch.float64)
    codes[..., 0], codes[1, :, 1] = torch.linspace(-2, 2, 8), 2.0  # the place, the chain
    windows = codes.unfold(1, 5, 1).transpose(-1, -2).flatten(0, 1)  # all four of each chain
    heads = make.heads(terms[0]) | make.heads(terms[1])
    optimiser = torch.optim.Adam(torch.nn.ModuleDict(heads).parameters(), lr=1e-2)
    facts = {"z_BTD": windows, "heads": heads, "episodes_B": torch.arange(2).repeat_interleave(4)}
    for seed in range(100):
        batch = make.encoded(generator=torch.Generator().manual_seed(seed), **facts)
        optimiser.zero_grad()
        sum(term(batch) for term in terms).backward()
        optimiser.step()
    with torch.no_grad():
        for gap in (1, 2, 3, 4):
            start, goal = codes[:, :-gap], codes[:, gap:]
            assert (heads["distance"](start, goal) - gap).abs().max() < 0.5
            reached = heads["reachability"](start, goal) > 0
            right = reached == (torch.arange(1, 4) >= gap)
            across = heads["reachability"](start, goal.flip(0)) > 0
            assert right.float().mean() > 0.95
            assert across.float().mean() < 0.05


def test_temporal_distance_is_huber_in_blocks(make):
    term = registry.build("auxiliary", {"name": "temporal_distance"})
    lengths = torch.tensor([1.0, 2.0, 1.0])  # of the pairs 01, 02, 12
    for said, expected in ((lengths, 0.0), (torch.full((3,), 1.25), (2 * 0.25**2 / 2 + 0.75**2 / 2) / 3)):
        heads = {"distance": lambda start, goal, said=said: said.expand(start.shape[:-1])}
        assert term(make.encoded(frames=3, heads=heads)).item() == pytest.approx(expected)
