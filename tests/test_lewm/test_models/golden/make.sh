#!/usr/bin/env bash
# The golden files of test_released.py, from stable-worldmodel 0.1.1: bash tests/test_lewm/test_models/golden/make.sh
# PEER_4 and PEER_5: venvs of experiments/peers/setup_lewm.sh with TRANSFORMERS=4.57.6 and 5.23.0.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
worker=$here/../../../../experiments/peers/lewm_worker.py
"${PEER_4:?a venv}/bin/python" "$worker" "$here/transformers_4"
"${PEER_5:?a venv}/bin/python" "$worker" "$here/transformers_5" --safetensors
"$PEER_4/bin/python" "$worker" "$here/transformers_4" --full --shapes
"$PEER_5/bin/python" "$worker" "$here/transformers_5" --full --shapes --block-dim 25
