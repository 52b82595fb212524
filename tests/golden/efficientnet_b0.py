"""Writes efficientnet_b0_golden.h: EfficientNet-B0 by PyTorch on weights, images and batch-norm values that the test makes
again from the same formulas. The network is written down here from the paper's table and timm's names, apart from model/.

    /usr/bin/python3 tests/golden/efficientnet_b0.py > tests/golden/efficientnet_b0_golden.h
    (Debian 12: python3-torch, python3-numpy)
"""
import math

import numpy
import torch
import torch.nn.functional as F

torch.set_num_threads(2)
SEED = 11
BATCH = 4  # images 0..3 calibrate, image 4 is embedded
WEIGHTS = 3  # PHILOX_WEIGHTS
STAGES = [(1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320)]  # repeats, kernel, stride, expand, out


def philox(key, counter):
    """Philox4x32-10 on arrays: counter is four arrays of uint64 holding 32-bit words."""
    c = [numpy.asarray(word, dtype=numpy.uint64) for word in counter]
    low, high = key & 0xFFFFFFFF, key >> 32
    mask, shift = numpy.uint64(0xFFFFFFFF), numpy.uint64(32)
    for _ in range(10):
        p0, p1 = numpy.uint64(0xD2511F53) * c[0], numpy.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> shift) ^ c[1] ^ numpy.uint64(low), p1 & mask, (p0 >> shift) ^ c[3] ^ numpy.uint64(high), p0 & mask]
        low, high = (low + 0x9E3779B9) & 0xFFFFFFFF, (high + 0xBB67AE85) & 0xFFFFFFFF
    return c


def check_philox():
    """Known answers published with Random123."""
    ones = 0xFFFFFFFF
    for key, counter, want in ((0, [0] * 4, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
                               (ones << 32 | ones, [ones] * 4, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD])):
        assert [int(word) for word in philox(key, counter)] == want


def normals(tensor, count):
    quarter = numpy.arange((count + 3) // 4)
    a, b, c, d = philox(SEED, [quarter, numpy.full_like(quarter, tensor), 0 * quarter, 0 * quarter + WEIGHTS])
    pairs = []
    for u, v in ((a, b), (c, d)):
        radius = numpy.sqrt(-2 * numpy.log((u.astype(float) + 1) / 2 ** 32))
        angle = 2 * math.pi * v.astype(float) / 2 ** 32
        pairs += [radius * numpy.cos(angle), radius * numpy.sin(angle)]
    return numpy.stack(pairs, axis=1).reshape(-1)[:count].astype(numpy.float32)


class State:
    """The state_dict, filled in timm's order; `index` is the tensor number without num_batches_tracked."""

    def __init__(self):
        self.tensors, self.index, self.norms = {}, 0, []

    def conv(self, name, out, group_in, kernel, groups=1):
        deviation = math.sqrt(2 / (kernel * kernel * out / groups))
        values = deviation * normals(self.index, out * group_in * kernel * kernel).astype(float)
        self.tensors[name] = torch.from_numpy(values.astype(numpy.float32).reshape(out, group_in, kernel, kernel))
        self.index += 1

    def norm(self, name, channels):
        c, n = numpy.arange(channels, dtype=float), len(self.norms)
        for suffix, values in (("weight", 1 + 0.3 * numpy.sin(0.7 * c + n)), ("bias", 0.2 * numpy.cos(0.3 * c + n)),
                               ("running_mean", 0 * c), ("running_var", 0 * c + 1)):
            self.tensors[f"{name}.{suffix}"] = torch.from_numpy(values.astype(numpy.float32))
        self.norms.append(name)
        self.index += 4

    def squeeze(self, name, channels, reduced):
        for part, out, inside in (("conv_reduce", reduced, channels), ("conv_expand", channels, reduced)):
            self.conv(f"{name}.{part}.weight", out, inside, 1)
            self.tensors[f"{name}.{part}.bias"] = torch.zeros(out)
            self.index += 1


def blocks():
    inside = 32
    for s, (repeats, kernel, stride, expand, out) in enumerate(STAGES):
        for b in range(repeats):
            yield f"blocks.{s}.{b}", kernel, stride if b == 0 else 1, expand, inside, out
            inside = out


def make_state(channels):
    state = State()
    state.conv("conv_stem.weight", 32, channels, 3)
    state.norm("bn1", 32)
    for name, kernel, _, expand, inside, out in blocks():
        middle, norm = inside * expand, 1
        if expand > 1:
            state.conv(f"{name}.conv_pw.weight", middle, inside, 1)
            state.norm(f"{name}.bn1", middle)
            norm = 2
        state.conv(f"{name}.conv_dw.weight", middle, 1, kernel, middle)
        state.norm(f"{name}.bn{norm}", middle)
        state.squeeze(f"{name}.se", middle, inside // 4)
        state.conv(f"{name}.conv_pw{'l' if expand > 1 else ''}.weight", out, middle, 1)
        state.norm(f"{name}.bn{norm + 1}", out)
    state.conv("conv_head.weight", 1280, 320, 1)
    state.norm("bn2", 1280)
    return state


class Net:
    def __init__(self, state, same, epsilon):
        self.t, self.same, self.epsilon, self.training = state.tensors, same, epsilon, False
        self.momentum = 1.0  # the running statistics become those of the batch

    def conv(self, x, name, stride=1, groups=1):
        weight = self.t[f"{name}.weight"]
        kernel = weight.shape[-1]
        if not self.same:
            return F.conv2d(x, weight, None, stride, (stride - 1 + kernel - 1) // 2, 1, groups)
        total = max((math.ceil(x.shape[-1] / stride) - 1) * stride + kernel - x.shape[-1], 0)
        before, after = total // 2, total - total // 2
        return F.conv2d(F.pad(x, (before, after, before, after)), weight, None, stride, 0, 1, groups)

    def norm(self, x, name):
        return F.batch_norm(x, self.t[f"{name}.running_mean"], self.t[f"{name}.running_var"], self.t[f"{name}.weight"],
                            self.t[f"{name}.bias"], self.training, self.momentum, self.epsilon)

    def squeeze(self, x, name):
        gate = x.mean((2, 3), keepdim=True)
        gate = F.silu(F.conv2d(gate, self.t[f"{name}.conv_reduce.weight"], self.t[f"{name}.conv_reduce.bias"]))
        return x * torch.sigmoid(F.conv2d(gate, self.t[f"{name}.conv_expand.weight"], self.t[f"{name}.conv_expand.bias"]))

    def block(self, x, name, stride, expand):
        start, norm = x, 1
        if expand > 1:
            x = F.silu(self.norm(self.conv(x, f"{name}.conv_pw"), f"{name}.bn1"))
            norm = 2
        x = self.conv(x, f"{name}.conv_dw", stride, x.shape[1])
        x = self.squeeze(F.silu(self.norm(x, f"{name}.bn{norm}")), f"{name}.se")
        x = self.norm(self.conv(x, f"{name}.conv_pw{'l' if expand > 1 else ''}"), f"{name}.bn{norm + 1}")
        return x + start if stride == 1 and x.shape[1] == start.shape[1] else x

    def embed(self, images):
        x = F.silu(self.norm(self.conv(images, "conv_stem", 2), "bn1"))
        for name, _, stride, expand, _, _ in blocks():
            x = self.block(x, name, stride, expand)
        return F.silu(self.norm(self.conv(x, "conv_head"), "bn2")).mean((2, 3))


def image(number, channels, side):
    """Half waves, half noise: waves alone make batches so alike that batch norm magnifies rounding a thousandfold."""
    y, x = numpy.meshgrid(numpy.arange(side, dtype=float), numpy.arange(side, dtype=float), indexing="ij")
    planes = []
    for c in range(channels):
        word = philox(SEED, [(y * side + x).astype(int), 0 * x + number, 0 * x + c, 0 * x])[0]
        waves = numpy.sin(0.13 * x + 0.07 * (number + 1) * y + 0.002 * x * y + 0.9 * c + number)
        planes.append(0.25 + 0.25 * waves + 0.5 * (word >> numpy.uint64(8)).astype(float) / 2 ** 24)
    return torch.from_numpy(numpy.stack(planes).astype(numpy.float32))


def golden(channels, side, same, epsilon):
    state = make_state(channels)
    net = Net(state, same, epsilon)
    net.t = {name: tensor.double() for name, tensor in state.tensors.items()}
    net.training = True
    net.embed(torch.stack([image(n, channels, side) for n in range(BATCH)]).double())
    net.training = False
    checks = []
    for n, name in enumerate(state.norms):
        mean, variance = net.t[f"{name}.running_mean"], net.t[f"{name}.running_var"]
        c = torch.arange(len(mean), dtype=torch.float64)
        checks.append([float((mean.abs()).sum()), float((mean * torch.cos(c)).sum()), float(variance.sum()),
                       float((variance * torch.cos(c)).sum())])
        # small: with ten times as much, float32 and float64 of PyTorch itself differ by 2 %
        mean += 0.02 * torch.sqrt(variance) * torch.sin(1.1 * c + n)
        variance *= 1 + 0.04 * torch.sin(0.9 * c + n)
        for values, suffix in ((mean, "running_mean"), (variance, "running_var")):
            net.t[f"{name}.{suffix}"] = values.float().double()
    embedding = net.embed(image(BATCH, channels, side)[None].double())[0]
    count = sum(tensor.numel() for tensor in state.tensors.values())
    return count, checks, embedding.tolist()


def wrapped(values, digits):
    lines = [", ".join(f"{value:.{digits}g}" for value in values[i:i + 8]) for i in range(0, len(values), 8)]
    return "{" + ",\n ".join(lines) + "}"


def main():
    check_philox()
    print("/* Written by efficientnet_b0.py; do not edit. */\n/* clang-format off */")
    print(f"#define GOLDEN_SEED  {SEED}\n#define GOLDEN_BATCH {BATCH}\n#define GOLDEN_NORMS 49")
    print("struct golden {\n    int channels, side, same;\n    double epsilon;\n    size_t parameters;")
    print("    double norm[GOLDEN_NORMS][4]; /* sum |mean|, sum mean cos(c), sum variance, sum variance cos(c) */")
    print("    double embedding[1280];\n};\nstatic const struct golden goldens[] = {")
    for channels, side, same, epsilon in ((1, 64, 0, 1e-5), (1, 224, 0, 1e-5), (3, 75, 1, 1e-3), (1, 64, 1, 1e-3)):
        count, checks, embedding = golden(channels, side, same, epsilon)
        print(f"{{{channels}, {side}, {same}, {epsilon}, {count},")
        print("{" + ",\n ".join(wrapped(row, 10) for row in checks) + "},")
        print(wrapped(embedding, 8) + "},")
    print("};")


if __name__ == "__main__":
    main()
