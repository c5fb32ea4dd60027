#!/usr/bin/env bash
# A venv with stable-worldmodel's own LeWM: bash experiments/peers/setup_lewm.sh FOLDER [PYTHON]
# For tests/test_lewm/test_models/test_released.py and its golden files (golden/make.sh beside it). Only what the model
# needs is installed. TRANSFORMERS=4.57.6 names the ViT's tensors as the published weights do, 5.23.0 as later ones do.
set -euo pipefail
folder=${1:?usage: setup_lewm.sh FOLDER [PYTHON]}
[ -x "$folder/bin/python" ] || "${2:-python3}" -m venv "$folder"
"$folder/bin/pip" install -q ${PIP_ARGS:-} torch==2.13.0 numpy==2.4.6 einops==0.8.2 transformers==${TRANSFORMERS:-4.57.6}
"$folder/bin/pip" install -q ${PIP_ARGS:-} --no-deps stable-worldmodel==0.1.1
"$folder/bin/pip" list --format=freeze | grep -iE '^(stable-worldmodel|transformers|safetensors|torch|numpy|einops)=='
"$folder/bin/python" --version
