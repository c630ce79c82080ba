#!/usr/bin/env bash
# Runs everything that needs an NVIDIA GPU, and writes one JSON and one page for people:
#
#     benchmarks/gpu.sh [FOLDER]      # default: benchmarks/results/<time>
#
# PYTHON names the Python to use; default: .venv/bin/python, which `make install` makes, else python3.
# A step that fails does not stop those after it; its output is in FOLDER/<step>.log.
# Exits 0 when every step passed, 1 when one failed, and 6 at once where there is no usable GPU.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 6

if [ -z "${PYTHON:-}" ]; then
  PYTHON=$PWD/.venv/bin/python
  [ -x "$PYTHON" ] || PYTHON=python3
fi
export PYTHONPATH="$PWD/python:$PWD/tools${PYTHONPATH:+:$PYTHONPATH}"

# Prints the compute capability, or what is missing.
found=$("$PYTHON" benchmarks/gpu_report.py capability) || exit $?

results=${1:-benchmarks/results/$(date +%Y%m%dT%H%M%S)}
mkdir -p "$results"
: >"$results/steps.tsv"
failed=0

# step NAME COMMAND…: standard output to NAME.out, errors to NAME.log, the outcome to steps.tsv.
step() {
  local name=$1 started=$SECONDS status=0
  shift
  echo "$name: $*"
  "$@" >"$results/$name.out" 2>"$results/$name.log" || status=$?
  printf '%s\t%s\t%s\n' "$name" "$status" "$((SECONDS - started))" >>"$results/steps.tsv"
  [ "$status" = 0 ] || { failed=1; echo "  failed with $status: $results/$name.log"; }
  return "$status"
}

step doctor "$PYTHON" -m visionrt doctor --json
step budgets "$PYTHON" tools/dev/kernels.py --json
step kernel-times "$PYTHON" benchmarks/gpu_kernels.py --json
# One process: the checks of memory and time want the GPU for themselves.
step tests-gpu "$PYTHON" -m pytest -p no:xdist -m gpu --require-gpu \
  --junitxml="$results/tests-gpu.xml"
step tests-rest "$PYTHON" -m pytest -n auto --dist worksteal -m 'not gpu' \
  --junitxml="$results/tests-rest.xml"

photos=tests/data/images/labelled
classifier=(tests/data/models/efficientnet_lite0.onnx
  --preprocess 'imagenet,mean=127,std=128' --labels imagenet)
detector=(tests/data/models/ssd_mobilenet_v2_coco.onnx
  --task detect --preprocess tf --labels coco91)

for target in $("$PYTHON" benchmarks/gpu_report.py targets "$found"); do
  library=${target%%:*}
  for model in classifier detector; do
    declare -n flags=$model
    for precision in fp32 fp16; do
      name=$library-$model-$precision
      engine=$results/$name.engine
      step "build-$name" "$PYTHON" -m trtconvert build "${flags[@]}" -o "$engine" \
        --precision "$precision" --images "$photos" --target "$target" --target cpu --json ||
        continue
      step "bench-$name" "$PYTHON" -m visionrt bench "$engine" --device cuda:0 --json
      step "bench-$name-2callers" "$PYTHON" -m visionrt bench "$engine" --device cuda:0 \
        --callers 2 --json
    done
  done
done

"$PYTHON" benchmarks/gpu_report.py write "$results" || failed=1
echo "$results/report.md and $results/report.json"
exit "$failed"
