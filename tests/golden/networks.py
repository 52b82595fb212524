#!/usr/bin/env python3
"""Writes networks_golden.h: embeddings by PyTorch and timm of the networks that efficientnet_b0.py does not cover. Weights and
images come from the same formulas, put into timm's own modules by its names.
Run with PyTorch and timm at hand: python3 networks.py >networks_golden.h"""
import importlib.util
import pathlib

import timm
import torch

spec = importlib.util.spec_from_file_location("training", pathlib.Path(__file__).with_name("training.py"))
training = importlib.util.module_from_spec(spec)
spec.loader.exec_module(training)
b0 = training.b0
EVERY = 5


def embed(name, channels, side):
    image = b0.image(0, channels, side)[None].double()
    if name == "walmsley2020":
        net = training.Walmsley2020(side)
        net.t = {key: tensor.double() for key, tensor in net.t.items()}
        return net.embed(image)[0], sum(tensor.numel() for tensor in net.t.values())
    model = training.fill(timm.create_model(name, in_chans=channels, num_classes=0)).double().eval()
    with torch.no_grad():
        count = sum(value.numel() for key, value in model.state_dict().items() if "num_batches" not in key)
        return model(image)[0], count


def main():
    print("/* Written by networks.py; do not edit. */\n/* clang-format off */")
    print(f"#define GOLDEN_SEED  {b0.SEED}\n#define GOLDEN_EVERY {EVERY}")
    print("static const struct networks_golden {\n    const char *net;\n    int channels, side;\n    size_t parameters;")
    print("    double embedding[256]; /* every fifth output */\n} goldens[] = {")
    for name, channels, side in (("walmsley2020", 1, 128), ("efficientnet_lite0", 1, 64), ("tf_efficientnet_lite0", 3, 75),
                                 ("efficientnet_b0", 1, 96), ("tf_efficientnet_b0", 3, 97)):
        embedding, count = embed(name, channels, side)
        print(f'{{"{name}", {channels}, {side}, {count},\n' + b0.wrapped(embedding[::EVERY].tolist(), 8) + "},")
    print("};")


if __name__ == "__main__":
    main()
