#!/usr/bin/env python3
"""Writes training_golden.h: what PyTorch says of gradients, of running statistics and of ten AdamW steps, for EfficientNet-B0, the network of
Walmsley et al. 2020, and timm's own EfficientNet-Lite0. Run with PyTorch and timm at hand: python3 training.py >training_golden.h
Weights, images and batch-norm parameters come from the formulas of efficientnet_b0.py, so that only sums are stored."""
import importlib.util
import pathlib

import numpy
import timm
import torch
import torch.nn.functional as F

spec = importlib.util.spec_from_file_location("b0", pathlib.Path(__file__).with_name("efficientnet_b0.py"))
b0 = importlib.util.module_from_spec(spec)
spec.loader.exec_module(b0)
STEPS, DECAY, ELEMENTS = 10, 0.01, 4
torch.set_num_threads(1)  # beside other work, two threads wait for each other longer than they compute


def uniform(tensor, count, bound):
    """U(-bound, bound) by the rule of net_random_parameters()."""
    quarter = numpy.arange((count + 3) // 4)
    words = b0.philox(b0.SEED, [quarter, numpy.full_like(quarter, tensor), 0 * quarter, 0 * quarter + b0.WEIGHTS])
    values = numpy.stack([(word >> numpy.uint64(8)).astype(float) / 2 ** 24 for word in words], axis=1).reshape(-1)
    return (bound * (2 * values[:count] - 1)).astype(numpy.float32)


class Walmsley2020:
    """Convolutions 3 x 3 'same' with bias and ReLU, 2 x 2 pools, one dense layer of 128 (Walmsley et al. 2020)."""
    LAYERS = (("conv1", 32, 0), ("conv1b", 32, 1), ("conv2", 64, 0), ("conv2b", 64, 1), ("conv3", 128, 1), ("conv4", 128, 1))

    def __init__(self, side):
        self.t, inside, tensor = {}, 1, 0
        for name, out, kernel in [(name, out, 3) for name, out, _ in self.LAYERS] + [("dense1", 128, side // 16)]:
            taps = kernel * kernel
            values = uniform(tensor, out * inside * taps, (6 / (taps * inside + taps * out)) ** 0.5)
            self.t[f"{name}.weight"] = torch.from_numpy(values.reshape(out, inside, kernel, kernel))
            self.t[f"{name}.bias"] = torch.zeros(out)
            inside, tensor = out, tensor + 2

    def embed(self, x):
        for name, _, pooled in self.LAYERS:
            x = F.relu(F.conv2d(x, self.t[f"{name}.weight"], self.t[f"{name}.bias"], padding=1))
            x = F.max_pool2d(x, 2) if pooled else x
        return F.relu(F.conv2d(x, self.t["dense1.weight"], self.t["dense1.bias"]))[:, :, 0, 0]


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
    return model


class Timm:
    """A network of timm's own, as far as its embedding."""

    def __init__(self, name):
        self.model = fill(timm.create_model(name, in_chans=1, num_classes=0)).train()
        for module in self.model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 0.01  # what ours is; timm's own default is 0.1

    def embed(self, x):
        return self.model(x)


def loss_of(embedding):
    """Mean squared distance from a fixed pattern."""
    n, i = torch.meshgrid(torch.arange(embedding.shape[0]), torch.arange(embedding.shape[1]), indexing="ij")
    return ((embedding - 0.5 * torch.sin(0.01 * i + n).to(embedding.dtype)) ** 2).mean()


def running(net):
    """Of every batch norm, in the network's order: sum |mean|, sum mean cos(c), sum variance, sum variance cos(c), sum sqrt(variance)."""
    buffers = dict(net.model.named_buffers()) if isinstance(net, Timm) else net.t
    rows = []
    for name in [name for name in buffers if name.endswith("running_mean")]:
        mean, variance = buffers[name].double(), buffers[name.replace("_mean", "_var")].double()
        c = torch.arange(len(mean), dtype=torch.float64)
        rows.append([float(mean.abs().sum()), float((mean * torch.cos(c)).sum()), float(variance.sum()),
                     float((variance * torch.cos(c)).sum()), float(variance.sqrt().sum())])
    return rows


def apart(rows, others):
    """How far sums of means and of variances are apart, as the test measures it."""
    means = [abs(a[i] - b[i]) / max(a[0], a[4]) for a, b in zip(rows, others) for i in (0, 1)]
    variances = [abs(a[i] - b[i]) / a[2] for a, b in zip(rows, others) for i in (2, 3)]
    return max(means, default=0), max(variances, default=0)


def run(net, images, rate):
    names = [name for name in net.t if "running" not in name]
    for name in names:
        net.t[name].requires_grad_(True)
    optimiser = torch.optim.AdamW([net.t[name] for name in names], lr=rate, weight_decay=DECAY)
    losses, checks, norms = [], [], []
    for step in range(STEPS):
        optimiser.zero_grad()
        loss = loss_of(net.embed(images))
        loss.backward()
        losses.append(loss.item())
        norms += [running(net)] if step in (0, STEPS - 1) else []
        for name in names if step == 0 else []:
            gradient = net.t[name].grad.reshape(-1).double()
            c = torch.arange(len(gradient), dtype=torch.float64)
            some = [len(gradient) * (2 * i + 1) // (2 * ELEMENTS) for i in range(ELEMENTS)]
            checks.append([float(gradient.norm()), float((gradient * torch.cos(c)).sum()), float(gradient.abs().max())] +
                          gradient[some].tolist())
        optimiser.step()
    return losses, checks, norms


def make(kind, side, batch, dtype):
    images = torch.stack([b0.image(n, 1, side) for n in range(batch)]).to(dtype)
    if "lite0" in kind:
        net = Timm(kind)
        net.t = dict(net.model.to(dtype).named_parameters())
        return net, images
    if kind == "walmsley2020":
        net = Walmsley2020(side)
    else:
        net = b0.Net(b0.make_state(1), kind.startswith("tf_"), 1e-3 if kind.startswith("tf_") else 1e-5)
        net.training, net.momentum = True, 0.01 if kind.startswith("tf_") else 0.1
    net.t = {name: tensor.to(dtype) for name, tensor in net.t.items()}
    return net, images


def main():
    print("/* Written by training.py; do not edit. */\n/* clang-format off */")
    print(f"#define GOLDEN_SEED     {b0.SEED}\n#define GOLDEN_STEPS    {STEPS}\n#define GOLDEN_ELEMENTS {ELEMENTS}\n#define GOLDEN_NORMS    49")
    print("struct training_golden {\n    const char *net;\n    int side, batch, tensors;\n    double rate, tolerance, loss[GOLDEN_STEPS];")
    print("    /* Per tensor that learns: norm, sum of gradient cos(index), largest size, and the elements count (2 i + 1) / (2 ELEMENTS). */")
    print("    double gradient[220][3 + GOLDEN_ELEMENTS];")
    print("    /* Running statistics after the first and the last step: sum |mean|, sum mean cos(c), sum variance, sum variance cos(c), sum sqrt(variance). */")
    print("    int norms;\n    double running[2][GOLDEN_NORMS][5];\n};")
    print("static const struct training_golden goldens[] = {")
    # The third one's rate is smaller: with 1e-3 PyTorch's float32 and float64 are apart by 0.005 after ten steps.
    # Behind batch norm some value is always within rounding of a bend of ReLU6, and gets all of its gradient or none: 1e-2.
    for kind, side, batch, rate, tolerance in (("efficientnet_b0", 96, 6, 1e-3, 1e-3), ("tf_efficientnet_b0", 96, 6, 1e-3, 1e-3),
                                               ("walmsley2020", 64, 4, 1e-4, 1e-3),
                                               ("tf_efficientnet_lite0", 64, 16, 1e-4, 1e-2)):
        losses, checks, norms = run(*make(kind, side, batch, torch.float64), rate)
        single = run(*make(kind, side, batch, torch.float32), rate)
        largest = max(a[0] for a in checks)
        worst = max(abs(a[0] - b[0]) / max(a[0], 0.01 * largest) for a, b in zip(checks, single[1]))
        peak = max(a[2] for a in checks)
        element = max(abs(x - y) / max(a[2], 0.001 * peak) for a, b in zip(checks, single[1]) for x, y in zip(a[3:], b[3:]))
        track = max(abs(a - b) / a for a, b in zip(losses, single[0]))
        print(f"/* PyTorch in float32 itself: gradient norms within {worst:.1g}, elements within {element:.1g}, losses within {track:.1g} */")
        if norms[0]:
            far = [apart(a, b) for a, b in zip(norms, single[2])]
            print(f"/* and running means within {far[0][0]:.1g} after one step, {far[1][0]:.1g} after ten; variances {far[0][1]:.1g}, {far[1][1]:.1g} */")
        print(f'{{"{kind}", {side}, {batch}, {len(checks)}, {rate}, {tolerance},')
        print(b0.wrapped(losses, 10) + ",\n{" + ",\n ".join(b0.wrapped(row, 8) for row in checks) + f"}}, {len(norms[0])},\n{{")
        print(",\n ".join("{" + (",\n ".join(b0.wrapped(row, 10) for row in rows) or "{0}") + "}" for rows in norms) + "}},")
    print("};")


if __name__ == "__main__":
    main()
