"""Goal distance by hand."""

import pytest
import torch

from planners import GoalDistance

PATHS = torch.tensor([[[[0.0, 0.0], [1.0, 2.0]], [[3.0, 4.0], [3.0, 0.0]]], [[[1.0, 1.0], [1.0, 3.0]]] * 2])
GOALS = torch.tensor([[3.0, 0.0], [1.0, 1.0]])
SQUARED = torch.tensor([[[9.0, 8.0], [16.0, 0.0]], [[0.0, 4.0]] * 2])  # of each of the two latents to the goal


@pytest.mark.parametrize(("running", "terminal"), [(1.0, 0.0), (0.0, 1.0), (0.5, 2.0)])
def test_squared_distance_of_path_and_end(running, terminal):
    expected = running * SQUARED.mean(-1) + terminal * SQUARED[..., 1]
    cost = GoalDistance(running=running, terminal=terminal)(PATHS, GOALS)
    assert torch.equal(cost, expected)


def test_gradient_points_away_from_the_goal():
    path = PATHS.clone().requires_grad_()
    GoalDistance(running=0.0, terminal=1.0)(path, GOALS).sum().backward()
    assert torch.equal(path.grad[:, :, -1], 2 * (PATHS[:, :, -1] - GOALS[:, None]))
    assert path.grad[:, :, 0].abs().sum() == 0
