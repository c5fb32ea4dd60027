"""Writes lerobot.zip with the real lerobot 0.4.4 (AV1 video, its own statistics); the tests need only the zip file.

    python -m venv PEER; PEER/bin/pip install torch av datasets pandas
    PEER/bin/pip install --no-deps lerobot==0.4.4
    PEER/bin/python tests/test_lewm/test_data/test_formats/golden/make_lerobot.py

Where torchvision, accelerate and draccus are not installed, empty modules stand in for them: writing needs none.
Made with lerobot 0.4.4, datasets 5.2.0, pyarrow 26.0.1, av 18.1.0. Every value says episode and step.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import shutil
import sys
import tempfile
import types
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
OPTIONAL = {
    "accelerate",
    "cv2",
    "deepdiff",
    "diffusers",
    "draccus",
    "imageio_ffmpeg",
    "jsonlines",
    "placo",
    "pynput",
}
OPTIONAL |= {"rerun", "serial", "termcolor", "torchcodec", "torchvision", "transformers", "wandb"}
LENGTHS = (5, 7, 3)


class Empty(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds packages that are not installed and gives a module whose every name is an empty class."""

    def find_spec(self, name, path=None, target=None):
        known = name.split(".")[0] in OPTIONAL
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if known else None

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__path__ = []
        module.__getattr__ = self.empty
        return module

    def exec_module(self, module):
        pass

    @staticmethod
    def empty(name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda self, *a, **k: None, "__getattr__": lambda self, n: None})


def main():
    sys.meta_path.append(Empty())
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    features = {
        "observation.images.top": {
            "dtype": "video",
            "shape": (64, 64, 3),
            "names": ["height", "width", "channels"],
        },
        "observation.state": {"dtype": "float32", "shape": (2,), "names": ["a", "b"]},
        "action": {"dtype": "float32", "shape": (2,), "names": ["a", "b"]},
        "grid": {"dtype": "float32", "shape": (2, 3), "names": None},
    }
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "set"
        dataset = LeRobotDataset.create("golden/set", 10, features, root=root, use_videos=True)
        for number, length in enumerate(LENGTHS):
            for step in range(length):
                frame = {
                    "observation.images.top": np.full((64, 64, 3), 8 * (8 * number + step) + 4, np.uint8),
                    "observation.state": np.array([number, step], np.float32),
                    "action": np.array([number, step], np.float32) + 0.5,
                    "grid": step + np.arange(6, dtype=np.float32).reshape(2, 3),
                    "task": f"task {number % 2}",
                }
                dataset.add_frame(frame)
            dataset.save_episode()
        dataset.finalize()
        shutil.rmtree(root / "images", ignore_errors=True)
        shutil.make_archive(str(HERE / "lerobot"), "zip", root)


if __name__ == "__main__":
    main()
