#!/usr/bin/env bash
# A venv in which stable-worldmodel steps, renders and collects: bash experiments/peers/setup_envs.sh FOLDER [PYTHON]
# For `lewm benchmark envs` and the recordings in tests/test_envs/golden. Its three simulators and two stores are
# installed; its own requirements would bring every other simulator and a matching torchvision.
set -euo pipefail
folder=${1:?usage: setup_envs.sh FOLDER [PYTHON]}
[ -x "$folder/bin/python" ] || "${2:-python3}" -m venv "$folder"
"$folder/bin/pip" install -q ${PIP_ARGS:-} torch==2.13.0 numpy==2.4.6 gymnasium==1.4.0 einops loguru tabulate tqdm \
    pillow imageio pygame==2.6.1 pymunk==7.3.1 shapely opencv-python-headless==5.0.0.93 dm-control==1.0.50 \
    mujoco==3.17.0 lancedb==0.40.0 pylance==14.0.2 pyarrow==26.0.1 h5py==3.16.0 hdf5plugin==7.1.0
"$folder/bin/pip" install -q ${PIP_ARGS:-} --no-deps stable-worldmodel==0.1.1
"$folder/bin/pip" list --format=freeze | grep -iE '^(stable-worldmodel|torch|numpy|pymunk|dm.control|mujoco|lancedb|h5py)='
"$folder/bin/python" --version
