"""Does a task fit a model? What an evaluation refuses before it runs anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from envs import GoalTask
from lewm import registry
from lewm.models import WorldModel
from lewm.types import InputError


def check_fits(model: WorldModel, task: GoalTask) -> None:
    """Refuse a task of another image shape or action dimension than the model's, or without its sensors."""
    if "pixels" in model.columns and task.image_shape != model.image_shape:
        raise InputError(
            f"the model was trained on images of shape {model.image_shape}, the task renders {task.image_shape}; "
            f"evaluate with env.image_size={model.image_shape[0]}"
        )
    lengths = {"state": task.state_dim, **task.sensors}
    for column in model.columns:
        if column != "pixels" and (lengths.get(column),) != model.config.sensors[column].shape:
            raise InputError(
                f"the model observes '{column}' of shape {model.config.sensors[column].shape}, the task has the "
                f"vectors {lengths} and one camera; use the task the model was trained on"
            )
    if len(task.low) != model.action_spec.dim:
        raise InputError(
            f"the model takes actions of dimension {model.action_spec.dim}, the task {len(task.low)}; "
            "use its own task"
        )


def check_drawn_alike(
    made: Mapping[str, Any], env: Mapping[str, Any], facts: Mapping[str, Any], wanted: str
) -> None:
    """Refuse a task that is another version, or looks otherwise, than when the training data were recorded."""
    if wanted not in ("same", "any"):
        raise InputError(f"rendering is same (as the training data) or any, got '{wanted}'")
    source = facts.get("data", {}).get("source", {})
    trained = source.get("env")
    known = "task" in source and isinstance(trained, Mapping) and trained["name"] == env["name"]
    if wanted == "any" or not known:
        return
    then, now = ({"version": task["version"], **task["rendering"]} for task in (source["task"], made))
    for key in then | now:
        if (was := then.get(key)) != now.get(key):
            advice = {"version": "collect and train anew", "backend": f"set MUJOCO_GL={was}"}
            setting = key in registry.defaults("env", env["name"])
            usual = f"choose env={env['name']} env.{key}={was}" if setting else f"install {key} {was}"
            raise InputError(
                f"the training data are of {env['name']} with {key} {was}, here it is {now.get(key)}: "
                f"{advice.get(key, usual)}, or evaluate all the same with rendering=any"
            )
