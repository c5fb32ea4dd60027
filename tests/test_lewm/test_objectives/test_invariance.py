"""LeJEPA's invariance term: by hand, and its gradient into views and targets alike."""

import pytest
import torch

from lewm.objectives import Encoded, Objective
from lewm.objectives.predictions import Invariance
from lewm.types import InputError


def encoded(z_BVD, seed=0):
    actions = torch.zeros(*z_BVD.shape[:1], z_BVD.shape[1] - 1, 1, dtype=z_BVD.dtype)
    return Encoded(z_BVD, actions, predictor=None, generator=torch.Generator().manual_seed(seed))


def views(rows=6, count=4, dim=5):
    return torch.randn(rows, count, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("global_views", [1, 2, 4])
def test_it_is_the_mean_squared_distance_to_the_mean_of_the_global_views(global_views):
    z, total = views(), 0.0
    for row in z:
        middle = sum(row[:global_views]) / global_views
        total += sum(((view - middle) ** 2).mean() for view in row) / len(row)
    torch.testing.assert_close(Invariance(global_views=global_views)(encoded(z)), total / len(z))


def test_equal_views_cost_nothing_and_gradient_flows_into_the_target():
    z = views()[:, :1].expand(-1, 3, -1)
    assert Invariance()(encoded(z)) == 0
    z = views(count=3).requires_grad_()
    (gradient,) = torch.autograd.grad(Invariance(global_views=1)(encoded(z)), z)
    pull = 2 * (z - z[:, :1]) / z.numel()
    torch.testing.assert_close(gradient[:, 1:], pull[:, 1:])
    torch.testing.assert_close(gradient[:, 0], -pull[:, 1:].sum(1))  # 0 with a detached target


@pytest.mark.parametrize(("share", "rows"), [(0.05, 128), (0.02, 256)])
def test_with_sigreg_it_is_lejepa_up_to_a_factor(share, rows):
    """(1 - lambda) invariance + lambda mean_v EP_v, EP of N times the statistic: at the weight of the docstring."""
    weight = share * rows / (1 - share)
    spec = {"prediction": "invariance", "regulariser": {"name": "sigreg", "weight": weight}}
    terms = Objective(**spec)(encoded(views(rows)))
    published = (1 - share) * terms.prediction + share * rows * terms.regularisation
    torch.testing.assert_close((1 - share) * terms.total, published)


def test_no_global_view_is_an_error():
    with pytest.raises(InputError, match="global_views >= 1"):
        Invariance(global_views=0)
