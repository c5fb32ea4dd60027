"""`lewm ablation`: every variant builds, cells resume, what diverges is shown, the page says what the lines say."""

from __future__ import annotations

import json
from math import comb, sqrt
from statistics import mean

import pytest
from omegaconf import OmegaConf

import experiments.train as training
from experiments import config as configuration
from experiments.ablation import ablation, measures, page, verb
from experiments.ablation.variants import TASKS, VARIANTS, Task
from experiments.build import build_model
from experiments.cells import cells
from lewm import registry
from lewm.models import WorldModelConfig
from lewm.types import ActionSpec, InputError

SETTINGS = {"run": "unused", "tasks": ["two_room"], "variants": None, "also": None, "seeds": [0], "threads": 1}
SETTINGS |= {"plugins": []}
ACTIONS = ActionSpec([-1.0], [1.0], [0.0], [1.0])


def parts(overrides):
    """What Hydra would make of a variant's overrides, in a thousandth of its time."""
    names = [o.partition("=") for o in overrides]
    dots = [f"{k.replace('/', '.')}{'.name' if k in configuration.groups() else ''}={v}" for k, _, v in names]
    given = OmegaConf.to_container(OmegaConf.from_dotlist(dots))
    model = given.pop("model", {})
    specs = {"objective": {"name": "lejepa"}, "trainer": {"name": "default"}}
    built = {kind: whole(kind, spec | given.pop(kind, {})) for kind, spec in specs.items()}
    built["predictor"] = whole("predictor", {"name": "residual_mlp"} | model.pop("predictor", {}))
    assert not given and model.keys() <= WorldModelConfig.__dataclass_fields__.keys()
    return built


def whole(kind, spec):
    """With the names of the parts inside that only have settings."""
    for key, value in spec.items():
        if isinstance(value, dict):
            usual = registry.defaults(kind, spec["name"])[key]
            spec[key] = whole(key, ({"name": usual} if isinstance(usual, str) else usual) | value)
    return spec


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_builds(name):
    for kind, spec in parts(VARIANTS[name]).items():
        registry.build(kind, spec, latent_dim=8, block_dim=10)


@pytest.mark.slow
@pytest.mark.usefixtures("composed_once")
@pytest.mark.parametrize("task", TASKS)
def test_every_variant_composes(task):
    configuration.compose("collect", [*TASKS[task].collect, "out=x"])
    configuration.compose("evaluate", [*TASKS[task].evaluate, "run=x"])
    for overrides in VARIANTS.values():
        settings = configuration.compose("train", ["data=x", "out=y", *verb._training(TASKS[task], overrides)])
        objective = registry.build("objective", settings["objective"])
        build_model(settings["model"] | {"heads": objective.heads, "link": objective.link}, ACTIONS, 0)


def test_a_variant_with_a_predictor_does_without_the_settings_of_the_usual_one():
    task = Task("", (), ("trainer.steps=9", "model.predictor.history=2"), ())
    assert verb._training(task, ("objective=smwm",)) == [*task.train, "objective=smwm"]
    assert verb._training(task, ("model/predictor=gru",)) == ["trainer.steps=9", "model/predictor=gru"]


def test_unknown_names_are_offered_the_nearest(tmp_path, monkeypatch):
    monkeypatch.setattr(verb, "_collect", lambda task, folder: pytest.fail("a mistake must show before the work"))
    for wrong, hint in (
        ({"variants": ["smmw"]}, "unknown variant 'smmw'.*did you mean 'smwm'"),
        ({"tasks": ["two_rom"]}, "unknown task 'two_rom'.*did you mean 'two_room'"),
        ({"also": {"wide": "model.latent_dim=384"}}, "'wide'.*list of overrides"),
        ({"threads": 0}, "threads must be at least 1"),
    ):
        with pytest.raises(InputError, match=hint):
            ablation(SETTINGS | {"out": str(tmp_path / "out"), "run": str(tmp_path / "run")} | wrong)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, tiny):
    """Two variants and one that diverges, two seeds, a tiny Two-Room: (settings, out, what was trained)."""
    folder, trained = tmp_path_factory.mktemp("ablation"), []
    compose, train, composed = configuration.compose, verb.train, {}

    def remembered(name, overrides):
        """Hydra takes longer than the training, so it is asked once for each variant."""
        places = dict(o.split("=", 1) for o in overrides if o.startswith(("data=", "out=", "run=", "seed=")))
        key = (name, *(o for o in overrides if o.partition("=")[0] not in places))
        if key not in composed:
            composed[key] = compose(name, overrides)
        places |= {"seed": int(places["seed"])} if "seed" in places else {}
        return {**composed[key], **places} | ({"out": places["run"]} if name == "evaluate" else {})

    def noted(settings):
        trained.append("/".join(settings["out"].split("/")[-2:]))
        return train(settings)

    smaller = ("pairs=4", "budget=5", "rows=4", "detours=1.0")
    task = Task("Tiny", tuple(tiny["collect"]), (*tiny["train"], "trainer.steps=4"), smaller)
    settings = SETTINGS | {"run": str(folder / "run"), "out": str(folder / "out"), "variants": ["default", "smwm"]}
    settings |= {"seeds": [0, 1], "also": {"wild": ["trainer.learning_rate=1.0e+30"]}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "two_room", task)
        patch.setattr(training, "PROBE_FRAMES", 32)
        patch.setattr(measures, "WINDOWS", 12)
        patch.setattr(measures, "AHEAD", 3)
        patch.setattr(configuration, "compose", remembered)
        patch.setattr(verb, "train", noted)
        ablation(settings)
        yield settings, folder / "out", trained


def test_a_sweep_leaves_one_line_per_cell_and_a_page(sweep):
    _, out, trained = sweep
    found = {cell["cell"]: cell for cell in cells(out / "two_room.jsonl")}
    assert list(found) == [f"two_room, {v}, seed {s}" for s in (0, 1) for v in ("default", "smwm", "wild")]
    assert trained == [f"{v}/seed-{s}" for s in (0, 1) for v in ("default", "smwm", "wild")]
    for name, cell in found.items():
        (row,) = cell["rows"]
        if "wild" in name:
            assert row.keys() == {"failed"} and "became nan at step 2" in row["failed"]
            continue
        assert len(row["outcomes"]) == 4 and row["success"] == mean(map(int, row["outcomes"]))
        assert row["cpu_seconds"] > 0 and row["rollout_1"] > 0 and 1 <= row["effective_rank"] <= 8
        assert row["trained"]["objective"]["name"] == ("lejepa" if "default" in name else "smwm")
    rows = [found[f"two_room, {v}, seed {s}"]["rows"][0] for v in ("default", "smwm") for s in (0, 1)]
    assert len({row["pairs"] for row in rows}) == 1, "the test of pairs needs the same pairs"
    assert len({row["rollout_1"] for row in rows}) == 4, "each cell is another model"
    text = (out / "ablation.md").read_text()
    assert "| **default** | 2 |" in text and "| smwm | 2 |" in text and "| wild |" not in text
    assert "- wild, seed 1: the loss became nan at step 2" in text, "a diverging variant must be shown"
    assert (out / "ablation.png").stat().st_size > 5_000


def test_a_rerun_measures_only_what_is_missing_and_all_of_it(sweep):
    """The line of one cell is gone, its model is not: training it anew is what its seconds are about."""
    settings, out, trained = sweep
    log = out / "two_room.jsonl"
    before = log.read_text()
    trained.clear()
    ablation(settings)
    assert trained == [] and log.read_text() == before
    kept = [line for line in before.splitlines(keepends=True) if "smwm, seed 1" not in line]
    log.write_text("".join(kept))
    ablation(settings)
    assert trained == ["smwm/seed-1"]
    old, new = (
        next(json.loads(line)["rows"][0] for line in text.splitlines() if '"two_room, smwm, seed 1"' in line)
        for text in (before, log.read_text())
    )
    assert new.pop("cpu_seconds") > old.pop("cpu_seconds") / 5
    assert old.pop("plan_ms") > 0 and new.pop("plan_ms") > 0 and new == old


def line(variant, seed, outcomes="", **row):
    rate = outcomes.count("1") / max(1, len(outcomes))
    numbers = dict.fromkeys(page.MEASURES, 0.5) | {"rollout_8": 1 - rate, "rank_correlation": rate**2}
    row = row or {"outcomes": outcomes, "cpu_seconds": 10.0 + seed, **numbers}
    settings = {"task": "two_room", "variant": variant, "overrides": [], "seed": seed, "threads": 1}
    return json.dumps({"cell": f"{variant} {seed}", "settings": settings, "rows": [row]}) + "\n"


def table(text):
    rows = [[cell.strip() for cell in r.strip("|").split("|")] for r in text.splitlines() if r.startswith("| ")]
    return {row[0].strip("*"): dict(zip(rows[0], row, strict=True)) for row in rows[1:]}


def test_the_page_agrees_with_a_hand_made_log(tmp_path):
    """Wilson's interval and McNemar's test from their formulas."""
    usual = {0: "1100000000" * 4, 1: "1000000000" * 4}
    better = {0: "1111100000" * 4, 1: "0110000000" * 4, 2: "1111111111" * 4}  # no default with seed 2
    log = [line("default", seed, outcomes) for seed, outcomes in usual.items()]
    log += [line("better", seed, outcomes) for seed, outcomes in better.items()]
    log += [line("same", 0, usual[0]), line("lost", 0, failed="the loss became nan at step 3; lower it")]
    (tmp_path / "two_room.jsonl").write_text("".join(log))
    page.write(tmp_path)
    text = (tmp_path / "ablation.md").read_text()
    found = table(text)
    assert list(found) == ["better", "same", "default"], "the best first, the diverged nowhere"

    wins, count, z = 4 * (5 + 2 + 10), 120, 1.959964
    rate = wins / count
    middle, half = rate + z**2 / (2 * count), z * sqrt(rate * (1 - rate) / count + z**2 / (4 * count**2))
    low, high = ((middle + sign * half) / (1 + z**2 / count) for sign in (-1, 1))
    assert found["better"]["success"] == f"{rate:.0%} [{low:.0%}, {high:.0%}]"
    assert found["better"]["by seed"] == "50% 20% 100%" and found["better"]["seeds"] == "3"
    assert found["better"]["CPU s"] == "11"

    won, lost = 4 * (3 + 2), 4 * 1  # of the pairs of seeds 0 and 1
    p = 2 * sum(comb(won + lost, k) for k in range(lost + 1)) / 2 ** (won + lost)
    assert 0.001 < p < 0.05 / 2
    assert found["better"]["beside the default"] == f"{100 * (won - lost) / 80:+.0f}, p {p:.2g}"
    assert found["same"]["beside the default"] == "+5" and found["default"]["beside the default"] == ""
    assert "of 1 tests, what is not\nbelow 0.0500" in text
    assert "- lost, seed 0: the loss became nan at step 3\n" in text
    assert "with success over these 6 models: error at 8 -1.00, rank correlation +1.00.\n" in text


def test_a_page_without_the_default_compares_nothing(tmp_path):
    lines = [line("a", 0, "10"), line("b", 0, "11"), line("default", 0, failed="x")]
    (tmp_path / "two_room.jsonl").write_text("".join(lines))
    page.write(tmp_path)
    assert {row["beside the default"] for row in table((tmp_path / "ablation.md").read_text()).values()} == {""}
