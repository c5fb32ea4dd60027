"""The code and the commands of the pages in docs/ run as written, and what they list is all there is."""

import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import torch

import envs
import planners
from experiments import config
from lewm import registry

PAGE = (Path(__file__).parents[1] / "docs/planners.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_a_sampler_from_outside_evaluates_by_name(tiny, tiny_run, lewm, tmp_path, monkeypatch):
    (code,) = [block for block in BLOCKS if "@register" in block]
    assert len(code.splitlines()) < 60
    (tmp_path / "annealed.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    settings = ["planner=annealed", "planner.cooling=0.7", "planner.samples=8", *tiny["evaluate"]]
    code, _, err = lewm("evaluate", "plugins=[annealed]", f"run={tiny_run}", f"out={tmp_path}/out", *settings)
    assert code == 0, err
    assert (tmp_path / "out/summary.json").exists()
    assert sys.modules["annealed"].Annealed().cooling == 0.8


def test_a_proposal_from_outside_draws_for_any_planner():
    (code,) = [block for block in BLOCKS if "Proposal" in block]
    names = {}
    exec(code, names)
    seen = []

    def cost(actions):
        seen.append(actions)
        return actions.square().sum((-1, -2))

    planner = planners.CEM(horizon=8, proposal=names["Held"]())
    planner.plan(cost, planner.init(1, planners.Limits(low=[-1], high=[1]), [0]))
    held = seen[0][0, 2:].unflatten(1, (2, 4))  # behind the mean and rest
    assert torch.equal(held, held[:, :, :1].expand_as(held))
    assert held.std() > 0.1


DATA_PAGE = (Path(__file__).parents[1] / "docs/data.md").read_text()


@pytest.mark.slow
def test_the_commands_of_the_data_page_run_as_written(tiny, lewm, tmp_path, monkeypatch):
    """In order; what they take for granted (two days of data, somebody's HDF5 file) is made first."""
    monkeypatch.chdir(tmp_path)
    for day, seed in (("monday", 1), ("tuesday", 2)):
        assert lewm("collect", *tiny["collect"], f"seed={seed}", f"out=data/{day}")[0] == 0
    assert lewm("collect", "env.image_size=224", "episodes=4", "steps=30", "out=data/large")[0] == 0
    assert lewm("data", "convert", "data/large", "pusht_expert_train.h5", "--to", "swm_hdf5")[0] == 0
    blocks = re.findall(r"```bash\n(.*?)```", DATA_PAGE, re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert {command[1] for command in commands} == {"collect", "train", "data"}
    for _, verb, *arguments in commands:
        code, _, err = lewm(verb, *arguments, *tiny.get(verb, []))
        assert code == 0, (verb, arguments, err)
    assert (tmp_path / "runs/pusht/checkpoint").exists()
    assert (tmp_path / "pictures/episode-7.mp4").exists()


def test_the_code_of_the_data_page_runs_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", DATA_PAGE, re.DOTALL):
        exec(block, names)
    shapes, rest = capsys.readouterr().out.splitlines()
    assert shapes == "(8, 4, 48, 64, 3) (8, 4, 7) (8, 3, 5, 7)"
    assert rest.startswith("(7,) {'operator': 'ann'} ")


ENVS = Path(__file__).parents[1] / "docs/envs.md"
ENVS_PAGE = ENVS.read_text()
ENVS_CODE = re.findall(r"```python\n(.*?)```", ENVS_PAGE, re.DOTALL)


@pytest.mark.slow
def test_the_commands_of_the_environments_page_run_as_written(tiny, lewm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(registry._PARTS, "env", dict(registry._PARTS["env"]))  # forget the pendulum afterwards
    (adapter,) = [block for block in ENVS_CODE if "from_gymnasium" in block]
    (tmp_path / "my_pendulum.py").write_text(adapter)
    monkeypatch.syspath_prepend(tmp_path)
    blocks = re.findall(r"```bash\n(.*?)```", ENVS_PAGE, re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert [command[1] for command in commands] == ["collect", "collect", "collect", "train", "evaluate", "collect"]
    for _, verb, *arguments in commands:
        code, _, err = lewm(verb, *arguments, *tiny[verb])
        assert code == 0, (verb, arguments, err)
    assert (tmp_path / "data/pendulum/contact_sheet.png").exists()
    assert '"track": "heldout"' in (tmp_path / "runs/push-t/summary.json").read_text()


def test_the_code_of_the_environments_page_runs_as_written(capsys):
    for block in ENVS_CODE:
        if "from_gymnasium" not in block:
            exec(block, {})
    face, contract = capsys.readouterr().out.split("\n", 1)
    assert face == "(224, 224, 3) (224, 224, 3) False ['goal', 'goal_image', 'is_success', 'pose', 'state']"
    assert contract.rstrip().endswith("(8, 6)")


@pytest.mark.parametrize("id", envs.IDS)
def test_the_environments_page_knows_every_task(id):
    """Its row, its pictures, and each of its factors in a row of the table of factors."""
    name, settings = envs.IDS[id]
    (row,) = [line for line in ENVS_PAGE.splitlines() if f"`{id}`" in line and line.startswith("| ![]")]
    pictures = re.findall(r"\]\((envs/\w+\.(?:gif|png))\)", row)
    assert [picture[-3:] for picture in pictures] == ["gif", "png"] and f"`{name}`" in row
    assert all((ENVS.parent / picture).exists() for picture in pictures)
    task = registry.build("env", {"name": name, **settings}, rows=1)
    rows = [set(re.findall(r"`(\w+)`", line)) for line in ENVS_PAGE.splitlines() if line.startswith("| ")]
    assert any(set(task.factors.known) <= row for row in rows)
    assert f"| {round(task.fps)} |" in row


DOCS = Path(__file__).parents[1] / "docs"
PAGES = {name: (DOCS / f"{name}.md").read_text() for name in ("models", "objectives", "training")}
CHOSEN = {  # page, heading -> kind, and how one of it is switched on
    ("models", "Encoders"): ("encoder", "model/encoder={}"),
    ("models", "Predictors"): ("predictor", "model/predictor={}"),
    ("models", "Links"): ("link", "model.link=NAME"),
    ("models", "Heads"): ("head", None),  # the terms that learn them do
    ("objectives", "Named objectives"): ("objective", "objective=NAME"),
    ("objectives", "Predictions"): ("prediction", "objective/prediction=NAME"),
    ("objectives", "Regularisers"): ("regulariser", "objective/regulariser={}"),
    ("objectives", "Auxiliary terms"): ("auxiliary", "objective.auxiliary=[{}]"),
    ("objectives", "The grammar of regularisers"): ("statistic", "objective/regulariser/statistic=NAME"),
    ("objectives", "The grammar of regularisers", 1): ("directions", "objective/regulariser/directions=NAME"),
    ("objectives", "The grammar of regularisers", 2): ("target", "objective/regulariser/target=NAME"),
}
EXAMPLES = DOCS.parent / "examples"


@pytest.mark.parametrize("place", CHOSEN, ids=lambda place: "-".join(map(str, place)))
def test_the_pages_know_every_part_and_how_to_switch_it_on(place):
    kind, override = CHOSEN[place]
    (section,) = re.findall(rf"^## {place[1]}\n(.*?)(?=^## |\Z)", PAGES[place[0]], re.DOTALL | re.MULTILINE)
    known = [name for name in registry.names(kind) if registry._path(registry.get(kind, name)).startswith("lewm.")]
    if kind == "auxiliary":  # a regulariser is one, too, and has its own section
        known = [name for name in known if name not in registry.names("regulariser")]
    headed = set(re.findall(r"^(?:### |\| )`(\w+)`", section, re.MULTILINE))
    assert set(known) <= headed
    if override and "NAME" in override:
        shown = override.replace("NAME", "")
        assert f"`{shown}" in section, shown
    elif override:
        assert [name for name in known if override.format(name) not in section and name != "vector"] == []


def lines_of(page: str) -> list[list[str]]:
    """`lewm train` and `pretrain` lines of its shell blocks, as (verb, *arguments)."""
    blocks = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    whole = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines = [shlex.split(line, comments=True) for line in whole]
    return [line[1:] for line in lines if line[1] in ("train", "pretrain")]


def overrides_of(page: str) -> list[list[str]]:
    """What the text between the blocks says to type, each in backticks; `NAME` is none."""
    text = re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    found = [
        span for span in re.findall(r"`([^`\n]+)`", text) if re.match(r"'?(model|objective|trainer)[\w./]*=", span)
    ]
    return [["train", *shlex.split(span)] for span in found if "NAME" not in span]


NEEDS = {  # settings of a part that must be chosen first
    "objective.prediction.steps": "objective=open_loop",
    "objective.regulariser.form": "objective/regulariser=exact_sigreg",
    "objective.regulariser.kernel": "objective/regulariser=sphere_mmd",
    "model.encoder.registers": "model/encoder=vit",
    "model.predictor.residual": "model/predictor=adaln_transformer",
}
SHOWN = [shown for page in PAGES.values() for shown in (*lines_of(page), *overrides_of(page))]


@pytest.fixture
def own_parts(monkeypatch):
    """The two examples can be imported as plug-ins; what they register is forgotten afterwards."""
    monkeypatch.syspath_prepend(EXAMPLES)
    for kind in ("regulariser", "predictor"):
        monkeypatch.setitem(registry._PARTS, kind, dict(registry._PARTS[kind]))
    yield
    for name in ("your_own_objective", "your_own_predictor"):
        sys.modules.pop(name, None)


def test_what_the_pages_choose_exists():
    """Every group=name; the next test composes all of it."""
    groups, chosen = config.groups(), 0
    for override in (override for _, *overrides in SHOWN for override in overrides):
        key, _, value = override.partition("=")
        if key in groups and value not in ("coding_rate", "arx"):
            assert value in groups[key], override
            chosen += 1
    assert chosen > 40


@pytest.mark.slow
@pytest.mark.usefixtures("composed_once")
@pytest.mark.parametrize("shown", SHOWN, ids=" ".join)
def test_what_the_pages_say_to_type_is_understood(shown, own_parts):
    verb, *overrides = shown
    first = [needed for key, needed in NEEDS.items() if any(o.startswith(f"{key}=") for o in overrides)]
    given = [] if any(o.startswith("data=") for o in overrides) else ["data=d", "out=o"]
    composed = config.compose(verb, [*given, *first, *overrides])
    registry.build("objective", composed["objective"])
    registry.build("trainer", composed["trainer"])


@pytest.mark.parametrize(("page", "name"), [("objectives", "your_own_objective"), ("models", "your_own_predictor")])
def test_the_part_a_page_shows_is_the_example_s(page, name):
    (shown,) = [
        block for block in re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL) if "@register" in block
    ]
    part = shown[shown.index("@register") :]
    example = (EXAMPLES / f"{name}.py").read_text()
    assert part in example and f"# {name}.py" in shown and len(shown.splitlines()) < 40
    imports = [line for line in shown[: -len(part)].splitlines() if re.match("from|import", line)]
    assert [line for line in imports if line not in example] == []


def test_the_pages_quote_the_measured_costs():
    cost = runpy.run_path(str(DOCS / "results/objectives/cost.py"))
    rows = [json.loads(line) for line in cost["RAW"].read_text().splitlines()[1:]]
    adr = (DOCS / "adr/0010-onednn-for-gradients-too.md").read_text()
    pages = [PAGES["models"], PAGES["objectives"], adr]
    assert [cost["quoted"](page, rows) for page in pages] == pages
    changed = [
        row | {"ms": [0.0, 0.0]} for row in rows if row["kind"] in ("regulariser", "auxiliary", "prediction")
    ]
    replaced = " ".join(cost["quoted"](PAGES["objectives"], changed).split())
    assert replaced.count("0.0 / 0.0 ms") == len(changed)


def test_the_ablation_page_is_made_of_its_lines(tmp_path):
    from experiments.ablation import page

    results = DOCS / "results/ablation"
    for name in ("two_room.jsonl", "reacher.jsonl"):
        (tmp_path / name).write_bytes((results / name).read_bytes())
    page.write(tmp_path)
    assert (tmp_path / "ablation.md").read_text() == (results / "ablation.md").read_text()


EVALUATION_PAGE = (Path(__file__).parents[1] / "docs/evaluation.md").read_text()


def test_the_agent_of_the_evaluation_page_acts_by_name(tiny, tiny_run, lewm, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", EVALUATION_PAGE, re.DOTALL)
    (tmp_path / "my_package.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    given = ["plugins=[my_package]", "agents=[model,sway]", f"run={tiny_run}", f"out={tmp_path}/out"]
    code, _, err = lewm("evaluate", *given, *tiny["evaluate"])
    assert code == 0, err
    assert json.loads((tmp_path / "out/summary.json").read_text())["sway_n"] == 6


def test_the_results_page_is_made_of_its_lines():
    folder = Path(__file__).parents[1] / "docs/results/evaluation"
    assert runpy.run_path(str(folder / "page.py"))["page"]() == (folder / "README.md").read_text()
