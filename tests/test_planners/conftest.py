"""Toy problems whose answers are known: a spec of bounds, and a world whose latent is the point itself."""

from types import SimpleNamespace

import pytest
import torch

from planners import CEM, LBFGS, PLANNERS, Chain


class PointDynamics:
    """Observation = latent = a 2-D point that moves by each action. Remembers all contexts it made."""

    def __init__(self, *, history=1, action_block=1, speed=1.0, recommendation=None):
        self.history, self.action_block = history, action_block
        self.action_spec = SimpleNamespace(low=[-speed] * 2, high=[speed] * 2, std=[0.5 * speed] * 2)
        self.recommendation = recommendation or {}
        self.contexts = []

    def encode(self, observations):
        return observations.float()

    def context(self, observations, actions):
        self.contexts.append((observations.clone(), actions.clone()))
        return observations[:, -1].float()

    def start(self, context):
        return context

    def rollout(self, context, actions_BSHA):
        blocks = actions_BSHA.unflatten(2, (-1, self.action_block)).sum(3)
        return context[:, None, None] + blocks.cumsum(2)


SAMPLING = ("cem", "icem", "mppi", "predictive_sampling")
NAMES = (*SAMPLING, "adam", "lbfgs", "chain")  # categorical_cem has other actions: test_cem.py


def build(name, *, horizon=5, samples=24, iterations=3, **options):
    """A small planner by name, all with the same size."""
    options = {"horizon": horizon, "iterations": iterations, "warm_iterations": 2, **options}
    if name == "chain":
        options.setdefault("elites", 5)
        first = CEM(samples=samples, **options)
        shared = {
            key: options[key] for key in ("horizon", "iterations", "warm_iterations", "returns") if key in options
        }
        return Chain(first=first, then=LBFGS(samples=2, **shared))
    if name in ("cem", "icem"):
        options.setdefault("elites", 5)
    return PLANNERS[name](samples=4 if name in ("adam", "lbfgs") else samples, **options)


@pytest.fixture(params=NAMES)
def make_planner(request):
    """Options -> a small planner; tests that ask for it run once for each."""
    return lambda **options: build(request.param, **options)


@pytest.fixture(params=SAMPLING)
def make_sampling_planner(request):
    """The same without planners that need gradients."""
    return lambda **options: build(request.param, **options)


class Recorder:
    """A cost that keeps all it was asked and answered."""

    def __init__(self, cost):
        self.cost, self.candidates, self.costs = cost, [], []

    def __call__(self, actions):
        answer = self.cost(actions)
        self.candidates.append(actions.detach().clone())
        self.costs.append(answer.detach() if isinstance(answer, torch.Tensor) else answer)
        return answer


@pytest.fixture
def recorder():
    return Recorder


@pytest.fixture
def sphere():
    """target -> cost: squared distance of every action to the target."""
    return lambda target: lambda actions: (actions - target).square().sum((-1, -2))


@pytest.fixture
def fake_clock(monkeypatch):
    """A clock that stands still unless a test moves it: `now[0] += 1`."""
    now = [0.0]
    for module in ("planners.clock", "planners.chain", "planners.mpc"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(perf_counter=lambda: now[0]))
    return now


@pytest.fixture
def point_dynamics():
    return PointDynamics


@pytest.fixture
def make_spec():
    def make(low, high, std=None):
        std = [(h - lo) / 2 for lo, h in zip(low, high, strict=True)] if std is None else std
        return SimpleNamespace(low=low, high=high, std=std)

    return make


@pytest.fixture(scope="session")
def make_model():
    """A real world model of 16 x 16 images with random weights, in evaluation mode."""
    from lewm.models import WorldModel, WorldModelConfig
    from lewm.types import ActionSpec

    predictors = {
        "residual_mlp": {"name": "residual_mlp", "width": 32},
        "adaln_transformer": {
            "name": "adaln_transformer",
            **{"depth": 2, "heads": 2, "head_dim": 8, "hidden": 32, "action_hidden": 16},
        },
    }

    def make(predictor="residual_mlp", action_block=2):
        config = WorldModelConfig(
            encoder={"name": "conv", "channels": [4, 8], "features": 16},
            predictor=predictors[predictor],
            image_size=16,
            latent_dim=8,
            projector_hidden=16,
            action_block=action_block,
        )
        spec = ActionSpec([-1, -2], [1, 2], [0.1, 0.0], [0.5, 1.0])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            model = WorldModel(config, spec).eval()
            for name, parameter in model.named_parameters():
                if "modulation" in name:  # zero at the start, which would hide the action
                    torch.nn.init.normal_(parameter, std=0.3)
        return model

    return make
