#!/usr/bin/env python3
"""Writes networks_golden.h: embeddings by PyTorch and timm of the networks that efficientnet_b0.py does not cover. Weights and
images come from the same formulas, put into timm's own modules by its names.
Run with PyTorch and timm at hand: python3 networks.py >networks_golden.h"""
import importlib.util
import pathlib

import numpy
import timm
import torch

spec = importlib.util.spec_from_file_location("training", pathlib.Path(__file__).with_name("training.py"))
training = importlib.util.module_from_spec(spec)
spec.loader.exec_module(training)
b0 = training.b0
EVERY = 5


def fill(model):
    """net_random_parameters() by timm's names, and the batch norms of efficientnet_b0.py."""
    tensor, norms, filled = 0, 0, {}
    for name, value in model.state_dict().items():
        if value.dim() == 4:
            out, _, kernel, _ = value.shape
            groups = out if "conv_dw" in name else 1
            deviation = (2 / (kernel * kernel * out / groups)) ** 0.5
            values = deviation * b0.normals(tensor, value.numel()).astype(float)
        elif ".se." in name:
            values = numpy.zeros(value.numel())
        elif name.endswith("num_batches_tracked"):
            continue
        else:
            c = numpy.arange(value.numel(), dtype=float)
            values = {"weight": 1 + 0.3 * numpy.sin(0.7 * c + norms), "bias": 0.2 * numpy.cos(0.3 * c + norms),
                      "running_mean": 0 * c, "running_var": 0 * c + 1}[name.rsplit(".", 1)[1]]
            norms += name.endswith("running_var")
        filled[name] = torch.from_numpy(values.astype(numpy.float32).reshape(value.shape))
        tensor += 1
    model.load_state_dict(filled, strict=False)
    return model.double().eval()


def embed(name, channels, side):
    image = b0.image(0, channels, side)[None].double()
    if name == "walmsley2020":
        net = training.Walmsley2020(side)
        net.t = {key: tensor.double() for key, tensor in net.t.items()}
        return net.embed(image)[0], sum(tensor.numel() for tensor in net.t.values())
    model = fill(timm.create_model(name, in_chans=channels, num_classes=0))
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
