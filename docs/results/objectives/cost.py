"""What each part costs on one CPU thread: raw lines in cost.jsonl, which docs/*.md quote.

OMP_NUM_THREADS=1 python docs/results/objectives/cost.py            # measures, a minute, and writes the figures
python docs/results/objectives/cost.py --quote                      # only writes those of cost.jsonl into the pages

Times are medians of processor seconds. Malloc keeps its heap, as it does in training.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from experiments.runs import provenance
from lewm import registry
from lewm.models import SIZES, WorldModel, layers
from lewm.objectives import Encoded
from lewm.training.heap import kept_heap
from lewm.types import ActionSpec

RAW = Path(__file__).with_name("cost.jsonl")
DOCS = Path(__file__).parents[2]
BATCHES, FRAMES, DIM, BLOCK = (64, 128), 4, 192, 10  # windows, frames of each, D, numbers in an action block
SAMPLES, STEPS = 128, 8  # candidates and blocks of a rollout
IMAGES = 8
ENCODERS = {  # as it is called in the page -> its settings and the side of the images
    "conv": ({"name": "conv"}, 64),
    "vit": ({"name": "vit"}, 224),
    "vit, patch 8": ({"name": "vit", "patch": 8}, 64),
}
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")

Row = dict[str, Any]


class Free:
    """A predictor that costs nothing, so that a term's own cost is seen."""

    history = 3

    def __call__(self, z_BTD: Tensor, actions_BTE: Tensor) -> Tensor:
        """Nearly the latents themselves."""
        return 0.9 * z_BTD


def milliseconds(call: Callable[[], object], repeats: int = 15) -> float:
    """Median processor time of a call."""
    taken = []
    for _ in range(repeats + 3):
        begin = time.process_time()
        call()
        taken.append(1e3 * (time.process_time() - begin))
    return round(median(taken[3:]), 3)


def megaflops(call: Callable[[], object]) -> float:
    """Of a call, by torch's counter, which knows F.linear and not what we replace it by."""
    kept, layers._ONEDNN_LINEAR = layers._ONEDNN_LINEAR, None
    try:
        with FlopCounterMode(display=False) as counter:
            call()
    finally:
        layers._ONEDNN_LINEAR = kept
    return counter.get_total_flops() / 1e6


def parameters(module: nn.Module) -> int:
    """How many it learns."""
    return sum(p.numel() for p in module.parameters())


def windows(batch: int) -> tuple[Tensor, Tensor]:
    """Gaussian latents (B, T, D) that take a gradient, and action blocks (B, T - 1, E)."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(batch, FRAMES, DIM, generator=generator, requires_grad=True)
    return z, torch.randn(batch, FRAMES - 1, BLOCK, generator=generator)


def term_ms(term: Any, batch: int, predictor: Any) -> float:
    """Forward and backward of a term, its heads and the predictor included."""
    specs = getattr(term, "heads", {})
    heads = {role: registry.build("head", spec, latent_dim=DIM, block_dim=BLOCK) for role, spec in specs.items()}
    z, actions = windows(batch)

    def call() -> None:
        rows = torch.arange(batch)
        generator = torch.Generator().manual_seed(0)
        term(Encoded(z, actions, predictor, generator, heads, rows // 2, 4.0 * rows)).backward()

    return milliseconds(call)


def terms() -> Iterator[Row]:
    """Regularisers and auxiliary terms."""
    regularisers = [name for name in registry.names("regulariser") if name != "none"]
    auxiliaries = [name for name in registry.names("auxiliary") if name not in regularisers]
    for kind, names in (("regulariser", regularisers), ("auxiliary", auxiliaries)):
        for name in names:
            part = registry.build(kind, {"name": name})
            yield {"kind": kind, "name": name, "ms": [term_ms(part, batch, Free()) for batch in BATCHES]}


def predictions() -> Iterator[Row]:
    """Prediction errors, through the default predictor."""
    for name in registry.names("prediction"):
        predictor = registry.build("predictor", {"name": "residual_mlp"}, latent_dim=DIM, block_dim=BLOCK)
        part = registry.build("prediction", {"name": name})
        yield {"kind": "prediction", "name": name, "ms": [term_ms(part, batch, predictor) for batch in BATCHES]}


def predictors() -> Iterator[Row]:
    """Size, arithmetic, imagination of one row of candidates, plain and fast, and a training step's share."""
    for name in registry.names("predictor"):
        made = registry.build("predictor", {"name": name}, latent_dim=DIM, block_dim=BLOCK)
        z, actions = windows(BATCHES[0])
        learn = milliseconds(lambda m=made, z=z, a=actions: m(z[:, :-1], a).square().mean().backward(), 9)
        made.eval()
        future = torch.randn(1, SAMPLES, STEPS, BLOCK)
        seen = made.observe(z[:1, : made.history], actions[:1, : made.history - 1])
        count = megaflops(lambda m=made, o=seen, f=future: m.rollout(o, f))
        with torch.no_grad():
            imagine = milliseconds(lambda m=made, o=seen, f=future: m.rollout(o, f), 9)
            plain = milliseconds(lambda m=made, o=seen, f=future: m.plain_rollout(o, f), 5)
        size = {"parameters": parameters(made), "mflop": count / SAMPLES / STEPS}
        times = {"rollout_ms": imagine, "plain_ms": plain, "learn_ms": learn}
        yield {"kind": "predictor", "name": name, **size, **times}


def encoders() -> Iterator[Row]:
    """Size, arithmetic of an image forwards, time of one forwards and backwards."""
    for name, (settings, side) in ENCODERS.items():
        made = registry.build("encoder", settings, image_size=side)
        images = torch.randn(IMAGES, 3, side, side)
        yield {
            "kind": "encoder",
            "name": name,
            "side": side,
            "parameters": parameters(made),
            "mflop": megaflops(lambda m=made, x=images: m(x)) / IMAGES,
            "ms": milliseconds(lambda m=made, x=images: m(x).square().mean().backward(), 5) / IMAGES,
        }


def products() -> Iterator[Row]:
    """Forward and backward of a layer and of the default model, by torch's product and by ours (ADR 0010)."""
    layer, x = layers.Linear(192, 2048), torch.randn(512, 192, requires_grad=True)
    torch_ms = milliseconds(lambda: F.linear(x, layer.weight, layer.bias).square().mean().backward(), 25)
    ours = milliseconds(lambda: layer(x).square().mean().backward(), 25)
    yield {"kind": "product", "name": "linear 512 x 192 -> 2048", "torch_ms": torch_ms, "ours_ms": ours}
    model = WorldModel(SIZES["small"], ActionSpec(low=(-1, -1), high=(1, 1), mean=(0, 0), std=(1, 1)))
    objective = registry.build("objective", {"name": "lejepa"})
    shape = (BATCHES[0], FRAMES, *model.image_shape)
    pixels, actions = torch.randint(0, 256, shape, dtype=torch.uint8), torch.randn(BATCHES[0], FRAMES - 1, BLOCK)

    def step() -> None:
        generator = torch.Generator().manual_seed(0)
        objective(Encoded(model.encode(pixels), actions, model.predictor, generator)).total.backward()

    ours, kept = milliseconds(step, 9), layers._ONEDNN_LINEAR
    layers._ONEDNN_LINEAR = None
    torch_ms, layers._ONEDNN_LINEAR = milliseconds(step, 9), kept
    yield {"kind": "product", "name": "default model, 64 windows", "torch_ms": torch_ms, "ours_ms": ours}


def figures(row: Row) -> str:
    """A measured part as its page says it."""
    if row["kind"] == "predictor":
        imagine = f"{row['mflop']:.2f} MFLOP a block, {row['rollout_ms']:.1f} ms to imagine"
        return f"{row['parameters']:,} parameters, {imagine}, {row['learn_ms']:.1f} ms to learn"
    if row["kind"] == "encoder":
        return f"{row['parameters']:,} parameters, {row['mflop']:,.0f} MFLOP and {row['ms']:.1f} ms an image"
    if row["kind"] == "product":
        return f"torch {row['torch_ms']:.1f} ms, ours {row['ours_ms']:.1f} ms"
    return " / ".join(f"{ms:.1f}" for ms in row["ms"]) + " ms"


def quoted(page: str, rows: list[Row]) -> str:
    """The page with these figures in place of others of their form, in a part's section or its row of a table."""
    for row in rows:
        text, name = figures(row), re.escape(row["name"])
        like = r"\s+".join(NUMBER.sub(lambda _: NUMBER.pattern, word) for word in text.split())

        def fill(found: re.Match[str], text: str = text) -> str:
            numbers = iter(NUMBER.findall(text))
            return found[1] + NUMBER.sub(lambda _: next(numbers), found[2])  # line breaks stay where they are

        for start, inside in ((f"\n### `{name}`", r"(?:(?!\n#).)*?"), (f"\n\\| `{name}` ", r"[^\n]*?")):
            page = re.sub(f"({start}{inside})({like})", fill, page, flags=re.DOTALL)
    return page


def measure() -> None:
    """Write cost.jsonl."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with kept_heap(), RAW.open("w") as file:
        file.write(json.dumps({"made": provenance(), "windows": BATCHES, "frames": FRAMES, "dim": DIM}) + "\n")
        for kind in (terms, predictions, predictors, encoders, products):
            for row in kind():
                file.write(json.dumps(row) + "\n")
                file.flush()


def main(arguments: list[str]) -> None:
    """Measure unless told otherwise, and write the figures into the pages."""
    if arguments != ["--quote"]:
        measure()
    rows = [json.loads(line) for line in RAW.read_text().splitlines()[1:]]
    for name in ("models.md", "objectives.md", "adr/0010-onednn-for-gradients-too.md"):
        page = DOCS / name
        page.write_text(quoted(page.read_text(), rows))


if __name__ == "__main__":
    main(sys.argv[1:])
