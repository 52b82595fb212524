#!/usr/bin/env bash
# timm opens what `triaged finetune` exports, trunk and head, and predicts the same; what Python's safetensors writes of a network of
# timm is taken, with the config.json that says which one it is, and every number of it comes back. Needs a Python with both
# (TRIAGE_BENCH_PYTHON, or the one that ./bench has made).
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
export ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=1
for python in "${TRIAGE_BENCH_PYTHON:-}" "${XDG_CACHE_HOME:-$HOME/.cache}/galaxy-triage-bench/venv/bin/python" python3; do
    [ -n "$python" ] && "$python" -c 'import timm, safetensors.torch, PIL' 2>/dev/null && break
    python=
done
[ -n "$python" ] || { echo "skipped: no Python with timm, safetensors and PIL (./bench makes one)"; exit 77; }

cat >"$folder/theirs.py" <<'PYTHON'
import csv, json, sys
import numpy, timm, torch
from PIL import Image
from safetensors.torch import load_file, save_file

verb, folder, network = sys.argv[1:4]
galaxies = [f"g{i}" for i in range(24)]


def images(names):
    stored = [numpy.asarray(Image.open(f"{folder}/{name}.png"), numpy.float32) for name in names]
    return torch.from_numpy(numpy.stack(stored)[:, None] / 255)


if verb == "make":  # images, labels, and weights whose running statistics are not those of a new network
    torch.manual_seed(1)
    noise = numpy.random.default_rng(1)
    with open(f"{folder}/catalog.csv", "w") as file:
        print("id_str,file_loc,kind", file=file)
        for i, name in enumerate(galaxies):
            Image.fromarray(noise.integers(0, 256, (32, 32), numpy.uint8)).save(f"{folder}/{name}.png")
            print(f"{name},{name}.png,{'round' if i % 2 else 'ring'}", file=file)
    net = timm.create_model(network, in_chans=1, num_classes=0)
    for _ in range(20):
        net(images(galaxies))
    save_file(net.state_dict(), f"{folder}/model.safetensors")
    json.dump({"architecture": network, "num_features": net.num_features}, open(f"{folder}/config.json", "w"))
else:
    trunk, head = load_file(f"{folder}/out/trunk.safetensors"), load_file(f"{folder}/out/head.safetensors")
    for name, value in load_file(f"{folder}/model.safetensors").items():
        assert name.endswith("num_batches_tracked") or torch.equal(value, trunk[name]), f"{name} has changed"
    net = timm.create_model(network, in_chans=1, num_classes=2)
    odd = net.load_state_dict({**trunk, **head}, strict=False)
    assert not odd.unexpected_keys and all(key.endswith("num_batches_tracked") for key in odd.missing_keys), odd
    rows = list(csv.DictReader(open(f"{folder}/out/predictions.csv")))
    with torch.inference_mode():
        theirs = torch.softmax(net.eval()(images(row["id_str"] for row in rows)), 1)
    ours = torch.tensor([[float(row["ring"]), float(row["round"])] for row in rows])
    off, spread = float((ours - theirs).abs().max()), float(theirs.std(0).max())
    print(f"{network}: {len(rows)} predictions within {off:.1e}, which spread by {spread:.1e}")
    assert len(rows) > 2 and off < 1e-5 and spread > 1e-4
PYTHON

check() { # NETWORK
    mkdir "$folder/$1"
    "$python" "$folder/theirs.py" make "$folder/$1" "$1"
    "$build/triaged" finetune "$folder/$1/catalog.csv" --labels kind --weights "$folder/$1/model.safetensors" --out "$folder/$1/out" --set "trunk.network=$1" \
        --set images.side=32 --set trunk.side=32 --set training.batch=8 --set training.augmentation=none --set training.blocks=0 --set training.norm=frozen \
        --set training.epochs_max=3 --set training.validation_share=0.4 >/dev/null 2>"$folder/err" || fail "$(cat "$folder/err")"
    "$python" "$folder/theirs.py" compare "$folder/$1" "$1" || fail "$1: timm sees something else"
}
check efficientnet_lite0
check tf_efficientnet_b0
