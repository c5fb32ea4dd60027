"""Films of episodes: every picture once in a PNG, what to show when as JSON, and a still strip without a script."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from envs import GoalTask
from experiments.report.replay import Bank, Rollout

FRAMES = 50  # of a film, about
SHEET_WIDTH = 8192  # pixels; some devices cannot draw wider pictures
GAP = 2  # between the pictures of a strip, per 64 pixels


@dataclass(frozen=True)
class Film:
    """What an episode looks like: different pictures, and which of them to show.

    Attributes:
        pictures: (n, h, w, 3).
        steps: (k,) of the episode; agent, imagined: (k,) the pictures at these steps; goal: the picture of it.
    """

    pictures: np.ndarray
    steps: list[int]
    agent: list[int]
    imagined: list[int]
    goal: int

    @property
    def columns(self) -> int:
        """Pictures in a row of the sheet."""
        return max(1, min(len(self.pictures), SHEET_WIDTH // self.pictures.shape[2]))

    def sheet(self) -> np.ndarray:
        """All pictures in one, row by row. Side by side, as a PNG finds repetitions within 32 KB only."""
        n, h, w, _ = self.pictures.shape
        rows = math.ceil(n / self.columns)
        cells = np.zeros((rows * self.columns, h, w, 3), np.uint8)
        cells[:n] = self.pictures
        table = cells.reshape(rows, self.columns, h, w, 3).swapaxes(1, 2)
        return table.reshape(rows * h, self.columns * w, 3)

    def instructions(self) -> dict[str, Any]:
        """What the player needs to know beside the sheet."""
        _, h, w, _ = self.pictures.shape
        parts = {name: getattr(self, name) for name in ("columns", "steps", "agent", "imagined", "goal")}
        return {"width": w, "height": h, **parts}


def make_film(task: GoalTask, rollout: Rollout, bank: Bank) -> Film:
    """Draw an episode again from its recorded states, with the nearest pictures to what was imagined."""
    states = np.array(rollout.record.states)
    stride = max(1, round((len(states) - 1) / FRAMES))
    steps = sorted({*range(0, len(states), stride), len(states) - 1})
    nearest, _ = bank.nearest(rollout.ends)
    latest = np.searchsorted(rollout.planned, steps, side="right") - 1  # the first plan is made at step 0
    wanted = np.concatenate([states[steps], [rollout.record.goal], bank.states[nearest]])
    drawn = task.draw(wanted)
    places: dict[bytes, int] = {}  # different pictures, as they come: neighbours in the sheet are alike
    cells = [places.setdefault(picture.tobytes(), len(places)) for picture in drawn]
    pictures = drawn[[cells.index(cell) for cell in range(len(places))]]
    agent, goal, imagined = cells[: len(steps)], cells[len(steps)], cells[len(steps) + 1 :]
    return Film(pictures, steps, agent, [imagined[k] for k in latest], goal)


def png(image: np.ndarray) -> str:
    """An image (h, w, 3) as a data URI, without loss; with a palette where its colours fit into one."""
    packed = image.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colours, index = np.unique(packed, return_inverse=True)
    palette = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1).astype(np.uint8)
    if len(colours) <= 256:
        picture = Image.fromarray(index.reshape(packed.shape).astype(np.uint8), "P")
        picture.putpalette(palette.tobytes())
    else:
        picture = Image.fromarray(image)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def figure(film: Film, name: str, caption: str, number: int) -> str:
    """A film as an element of the page: a strip of start, middle and end, which a script makes a player of.

    Args:
        name: of the film, for those who do not see it; caption: HTML.
        number: different for every film of a page.
    """
    _, h, w, _ = film.pictures.shape
    gap, rows, columns = GAP * w // 64 or 1, math.ceil(len(film.pictures) / film.columns), film.columns
    moments = [0, len(film.steps) // 2, len(film.steps) - 1]
    word = w // 8  # height of a line of text
    cells = [(film.agent[k], column, 0) for column, k in enumerate(moments)]
    cells += [(film.imagined[k], column, 1) for column, k in enumerate(moments)] + [(film.goal, 3, 0)]
    shown = "".join(
        f'<svg x="{column * (w + gap)}" y="{row * (h + gap) + 1.5 * word:g}" width="{w}" height="{h}" '
        f'viewBox="{cell % columns * w} {cell // columns * h} {w} {h}"><use href="#sheet-{number}"/></svg>'
        for cell, column, row in cells
    )
    words = [f"step {film.steps[k]}" for k in moments] + ["goal"]
    shown += "".join(
        f'<text x="{column * (w + gap)}" y="{word}" font-size="{word}">{text}</text>'
        for column, text in enumerate(words)
    )
    x, y = 3 * (w + gap), h + gap + 3 * word
    shown += f'<text x="{x}" y="{y:g}" font-size="{word}">below: the</text>'
    shown += f'<text x="{x}" y="{y + 1.2 * word:g}" font-size="{word}">imagined end</text>'
    return (
        f'<figure class="film" data-name="{escape(name)}" data-film="{escape(json.dumps(film.instructions()))}">'
        f'<svg class="strip" viewBox="0 0 {4 * w + 3 * gap} {2 * h + gap + 1.5 * word:g}" role="img" '
        f'aria-label="{escape(name)}: agent, goal and imagined end at {", ".join(words[:3])}">'
        f'<defs><image id="sheet-{number}" width="{columns * w}" height="{rows * h}" href="{png(film.sheet())}"/>'
        f"</defs>{shown}</svg><figcaption>{caption}</figcaption></figure>"
    )


def remark(bank: Bank, rollouts: Sequence[Rollout]) -> str:
    """How near the pictures of what was imagined are to what was imagined."""
    if not rollouts:
        return ""
    far = np.median(np.concatenate([bank.nearest(rollout.ends)[1] for rollout in rollouts])) / bank.typical
    return (
        f"The picture of an imagined end is the nearest of {len(bank.states)} frames of this evaluation; the "
        f"median distance to it is {far:.0%} of the distance of two frames taken at random."
    )
