r"""Views of pictures: several random crops and colourings of each, for objectives that compare them.

A batch of views is a batch of windows whose V frames show one picture; the actions between them are zero:

    pixels   view 0   ...   view G-1   view G   ...   view V-1
             \----- global ------/   \------- local -------/
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from lewm.data.pictures import Pictures
from lewm.data.sampling import Shuffle
from lewm.data.windows import Batch
from lewm.registry import register
from lewm.types import InputError

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
GREY_AXIS = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], np.float32) / math.sqrt(3)  # v -> (1, 1, 1) x v, unit
RANDOM = 13  # uniform numbers that a view takes


class Views:
    """V views of each picture, resized to the model's: the first few global (large crops), the others local.

    The augmentations are LeJEPA's (arXiv 2511.08544), without solarisation: a crop of random area, aspect and
    place, mirroring, brightness, contrast, saturation and hue (one affine map of RGB per view), grey, blur.
    The views of a picture are a function of (seed, its place p in the endless shuffled sequence) alone, p = step x
    batch size + row: neither batch size, nor number of processes, nor V changes those that there are.

    Args:
        pictures: to draw from, epoch after epoch.
        image_size: side of a view.
        views: V, of each picture.
        action_shape: (K, A) of the zero actions.
        global_views: how many of the V are global.
        global_scale, local_scale: smallest and largest share of the picture's area that is cropped.
        aspect: largest width over height of a crop, and of height over width; 1 crops squares.
        flip, grey: probability of mirroring, and of taking all colour away.
        jitter: probability of changing the colours at all.
        brightness, contrast, saturation: factors are drawn from 1 - x to 1 + x.
        hue: largest turn of the colour circle, in whole turns.
        blur: probability; blur_width: largest standard deviation, as a share of the side.
    """

    def __init__(
        self,
        pictures: Pictures,
        image_size: int,
        views: int,
        action_shape: tuple[int, int],
        *,
        global_views: int = 2,
        global_scale: Sequence[float] = (0.3, 1.0),
        local_scale: Sequence[float] = (0.05, 0.3),
        aspect: float = 4 / 3,
        flip: float = 0.5,
        jitter: float = 0.8,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.4,
        hue: float = 0.1,
        grey: float = 0.2,
        blur: float = 0.5,
        blur_width: float = 0.015,
    ) -> None:
        if not 1 <= global_views <= views or views < 2:
            raise InputError(f"views need V >= 2 and 1 <= global_views <= V, got V = {views} and {global_views}")
        for name, scale in (("global_scale", global_scale), ("local_scale", local_scale)):
            if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
                raise InputError(f"{name} is two shares of area, 0 < smallest <= largest <= 1, got {list(scale)}")
        shares = {"flip": flip, "jitter": jitter, "grey": grey, "blur": blur, "blur_width": blur_width}
        shares |= {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
        wrong = {name: share for name, share in shares.items() if not 0 <= share <= 1}
        if wrong or aspect < 1:
            raise InputError(f"views need aspect >= 1 and shares in [0, 1], got {wrong or {'aspect': aspect}}")
        self.pictures, self.image_size, self.views, self.action_shape = pictures, image_size, views, action_shape
        self.global_views, self.aspect, self.flip, self.jitter = global_views, aspect, flip, jitter
        self.spread = np.array([brightness, contrast, saturation, hue], np.float32)
        self.grey, self.blur, self.blur_width = grey, blur, blur_width
        is_global = np.arange(views) < global_views
        self.scale = np.where(is_global[:, None], tuple(global_scale), tuple(local_scale))  # (V, 2)

    def draw(self, step: int, batch_size: int, seed: int) -> Batch:
        """The views of a training step: a function of (step, seed) alone."""
        places = step * batch_size + np.arange(batch_size)
        numbers = np.array([self._number(int(place), seed) for place in places])
        random = np.stack([np.random.default_rng([seed, p]).random((self.views, RANDOM)) for p in places])
        pixels = np.empty((batch_size, self.views, self.image_size, self.image_size, 3), np.uint8)
        for row, picture in enumerate(self.pictures.read(numbers)):
            self._crop(picture, random[row], pixels[row])
        flat, drawn = pixels.reshape(-1, *pixels.shape[2:]), random.reshape(-1, RANDOM)
        self._colour(flat, drawn[:, 5:11])
        self._soften(flat, drawn[:, 11:13])
        actions = np.zeros((batch_size, self.views - 1, *self.action_shape), np.float32)
        return Batch({"pixels": pixels}, actions, numbers, np.zeros(batch_size, np.int64))

    def _number(self, place: int, seed: int) -> int:
        epoch, within = divmod(place, len(self.pictures))
        return int(Shuffle(len(self.pictures), seed, epoch)(np.array([within]))[0])

    def _crop(self, picture: np.ndarray, random_VR: np.ndarray, out: np.ndarray) -> None:
        """Cut, resize and mirror V views of a picture into `out` (V, h, w, 3)."""
        from PIL import Image

        height, width = picture.shape[:2]
        area = self.scale[:, 0] + random_VR[:, 0] * (self.scale[:, 1] - self.scale[:, 0])
        stretch = self.aspect ** (random_VR[:, 1] - 0.5)  # square root of width over height
        side = np.sqrt(area * height * width)
        wide, high = np.minimum(side * stretch, width), np.minimum(side / stretch, height)
        left, top = random_VR[:, 2] * (width - wide), random_VR[:, 3] * (height - high)
        boxes = np.stack([left, top, np.minimum(left + wide, width), np.minimum(top + high, height)], axis=1)
        image = Image.fromarray(picture)
        for k, box in enumerate(boxes.tolist()):
            view = np.asarray(image.resize((self.image_size,) * 2, Image.Resampling.BILINEAR, box=box))
            out[k] = view[:, ::-1] if random_VR[k, 4] < self.flip else view

    def _colour(self, pixels_Nhw3: np.ndarray, random_NR: np.ndarray) -> None:
        """Change colours in place, each view by one affine map M x + b."""
        jittered = random_NR[:, 0] < self.jitter
        change = self.spread * (2 * random_NR[:, 1:5].astype(np.float32) - 1) * jittered[:, None]
        bright, contrast, saturation = (1 + change[:, :3]).T
        saturation = np.where(random_NR[:, 5] < self.grey, np.float32(0), saturation)
        chosen = np.flatnonzero((bright != 1) | (contrast != 1) | (saturation != 1) | (change[:, 3] != 0))
        for n in chosen:
            rgb = pixels_Nhw3[n].reshape(-1, 3).astype(np.float32)
            middle = bright[n] * (rgb.mean(0) @ LUMA)
            linear = bright[n] * contrast[n] * _turn(change[n, 3]) @ _saturate(saturation[n])
            rgb = rgb @ linear.T + (1 - contrast[n]) * middle
            pixels_Nhw3[n] = np.clip(np.rint(rgb), 0, 255).reshape(pixels_Nhw3.shape[1:])

    def _soften(self, pixels_Nhw3: np.ndarray, random_NR: np.ndarray) -> None:
        from PIL import Image, ImageFilter

        for n in np.flatnonzero(random_NR[:, 0] < self.blur):
            width = float(random_NR[n, 1] * self.blur_width * self.image_size)
            pixels_Nhw3[n] = np.asarray(Image.fromarray(pixels_Nhw3[n]).filter(ImageFilter.GaussianBlur(width)))


def _saturate(factor: np.ndarray) -> np.ndarray:
    """(3, 3): colours away from their grey by `factor`; 0 leaves the grey of equal luma."""
    return factor * np.eye(3, dtype=np.float32) + (1 - factor) * np.tile(LUMA, (3, 1))


def _turn(turns: np.ndarray) -> np.ndarray:
    """(3, 3): a rotation of RGB about the grey axis (Rodrigues)."""
    angle = 2 * math.pi * float(turns)
    across = (1 - math.cos(angle)) * GREY_AXIS @ GREY_AXIS
    return np.eye(3, dtype=np.float32) + math.sin(angle) * GREY_AXIS + across


register("views", "crops")(Views)
# For control: most of the picture stays in view and left stays left. Some cropping there must be: asked only to
# overlook colours, latents have no reason to keep neighbouring places together.
GENTLE = {"global_scale": (0.7, 1.0), "local_scale": (0.7, 1.0), "aspect": 1.1, "flip": 0.0, "grey": 0.0}
register("views", "gentle")(partial(Views, **GENTLE))


def standard_view(picture: np.ndarray, image_size: int) -> np.ndarray:
    """The middle square of a picture, resized: what an encoder is shown once it is trained."""
    from PIL import Image

    height, width = picture.shape[:2]
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(Image.fromarray(picture).resize((image_size,) * 2, Image.Resampling.BILINEAR, box=box))
