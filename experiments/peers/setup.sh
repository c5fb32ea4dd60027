#!/usr/bin/env bash
# A venv with the peer that `compare.py` measures against: bash experiments/peers/setup.sh FOLDER [PYTHON]
# Only what plans is installed: the package's own requirements would bring data stores and a matching torchvision.
set -euo pipefail
folder=${1:?usage: setup.sh FOLDER [PYTHON]}
[ -x "$folder/bin/python" ] || "${2:-python3}" -m venv "$folder"
"$folder/bin/pip" install -q ${PIP_ARGS:-} torch==2.13.0 numpy einops loguru gymnasium
"$folder/bin/pip" install -q ${PIP_ARGS:-} --no-deps stable-worldmodel==0.1.1
"$folder/bin/pip" list --format=freeze | grep -iE '^(stable-worldmodel|torch|numpy|einops|gymnasium)=='
"$folder/bin/python" --version
