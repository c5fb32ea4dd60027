#!/usr/bin/env bash
# A venv with the real readers and writers of other formats: bash experiments/peers/setup_data.sh FOLDER [PYTHON]
# For test_judges.py and, with GOLDEN=1, to make the golden files beside it (golden/make.py). Only what stores data is
# installed: stable-worldmodel's own requirements would bring simulators and a matching torchvision.
set -euo pipefail
folder=${1:?usage: setup_data.sh FOLDER [PYTHON]}
[ -x "$folder/bin/python" ] || "${2:-python3}" -m venv "$folder"
"$folder/bin/pip" install -q ${PIP_ARGS:-} torch==2.13.0 numpy==2.4.6 h5py==3.16.0 hdf5plugin==7.1.0 \
    pillow simplejpeg==1.9.0 tqdm loguru gymnasium==1.4.0 minari==0.5.4 ${GOLDEN:+lancedb==0.40.0 pylance==14.0.2 pyarrow==26.0.1}
"$folder/bin/pip" install -q ${PIP_ARGS:-} --no-deps stable-worldmodel==0.1.1
"$folder/bin/pip" list --format=freeze | grep -iE '^(stable-worldmodel|minari|torch|numpy|h5py|simplejpeg|hdf5plugin|pyarrow|lancedb|pylance)=='
"$folder/bin/python" --version
