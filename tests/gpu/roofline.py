#!/usr/bin/env python3
"""Bytes and FLOPs of EfficientNet-B0 on a GPU as gpu/ runs it, and what they allow: the tables of docs/gpu.md.

Arithmetic only, nothing is measured. Usage: roofline.py [SIDE]
"""
import sys

STAGES = [(1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)]
# GB/s of memory, dense TFLOP/s of bf16 (fp16 on T4, which has no bf16 units: it computes bf16 on its fp32 cores) and of fp32; data sheets
CARDS = {"T4": (320, 8.1, 8.1), "RTX 4090": (1008, 165, 82.6), "A100 80 GB": (2039, 312, 19.5), "H100 SXM": (3350, 989, 67)}


def layers(side):
    """name, multiply-adds, values read and written by the kernels as built, the least a fused one needs, weights"""
    rows, size, inside = [], side // 2, 32
    stem = size * size * 32
    rows.append(("stem 3x3", stem * 9, 2 * side * side + 2 * stem + 2 * stem + stem, 2 * side * side + stem, 9 * 32))
    for stage, (repeats, kernel, stride, expand, out) in enumerate(STAGES):
        for block in range(repeats):
            s = stride if block == 0 else 1
            wide, after = inside * expand, size // s
            small, large, middle, last = size * size * inside, size * size * wide, after * after * wide, after * after * out
            name = f"{stage}.{block}"
            if expand > 1:
                rows.append((f"{name} expand", small * wide, small + large + 2 * large, small + large, inside * wide))
            rows.append((f"{name} depthwise {kernel}x{kernel}", middle * kernel * kernel, large + middle, large + middle, wide * kernel * kernel))
            reduced = inside // 4
            rows.append((f"{name} excitation", 2 * wide * reduced, middle + 2 * middle, 0, 2 * wide * reduced))
            rows.append((f"{name} project", middle * out, middle + last, middle + last, wide * out))
            if s == 1 and inside == out:
                rows.append((f"{name} add", 0, 3 * last, last, 0))
            inside, size = out, after
    head = size * size * 1280
    rows.append(("head", size * size * inside * 1280, size * size * inside + head + 2 * head, size * size * inside + head, inside * 1280))
    rows.append(("pool", 0, head, 0, 0))
    return rows


def main():
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 224
    rows = layers(side)
    def least_us(macs, values):  # per card: moving the bytes or multiplying, whichever takes longer
        return [max(2 * values / (bandwidth * 1e3), 2 * macs / (tensor * 1e6)) for bandwidth, tensor, _ in CARDS.values()]

    def cells(us):
        return "".join(f" {value:.2f} |" for value in us)

    print(f"| step ({side} px, one image, bf16) | MFLOP | MB as built | MB fused | FLOP per byte as built |"
          + "".join(f" us, {card} |" for card in CARDS) + "\n" + "|---" * (5 + len(CARDS)) + "|")
    for name, macs, built, fused, _ in rows:
        print(f"| {name} | {2 * macs / 1e6:.2f} | {2 * built / 1e6:.3f} | {2 * fused / 1e6:.3f} | {2 * macs / (2 * built):.1f} |" + cells(least_us(macs, built)))
    macs, built, fused = (sum(row[i] for row in rows) for i in (1, 2, 3))
    steps = [sum(us) for us in zip(*(least_us(row[1], row[2]) for row in rows))]
    print(f"| **all** | {2 * macs / 1e6:.0f} | {2 * built / 1e6:.1f} | {2 * fused / 1e6:.1f} | {2 * macs / (2 * built):.1f} |" + cells(steps) + "\n")
    print("| card | GB/s | bf16 TFLOP/s | bound by memory, as built | bound by memory, fused | bound by arithmetic |\n|---|---|---|---|---|---|")
    for card, (bandwidth, tensor, _) in CARDS.items():
        print(f"| {card} | {bandwidth} | {tensor} | {bandwidth * 1e9 / (2 * built):,.0f} | {bandwidth * 1e9 / (2 * fused):,.0f} | {tensor * 1e12 / (2 * macs):,.0f} |")
    print()
    # training in float: every step keeps its output; forward as built, backward reads values and gradients and writes gradients
    train = 4 * sum(built for _, _, built, _, _ in rows) * 3
    print(f"training, float: about {train / 1e6:.0f} MB per image forward and back\n")
    print("| card | bound by memory | bound by fp32 arithmetic |\n|---|---|---|")
    for card, (bandwidth, _, plain) in CARDS.items():
        print(f"| {card} | {bandwidth * 1e9 / train:,.0f} | {plain * 1e12 / (6 * macs):,.0f} |")
    print()
    inputs, columns, passes, answers, votes = 1280, 34 * 30, 30, 34, 40
    flops = 2 * inputs * columns
    doubles = answers * passes * votes * 30  # about 30 double operations per outcome, pass and answer
    print(f"scoring: {flops / 1e6:.2f} MFLOP of fp32 and about {doubles / 1e6:.2f} M double operations per galaxy ({passes} passes, {answers} answers, N = {votes})\n")
    print("| card | fp32 product | entropies in double | one-vote entropies |\n|---|---|---|---|")
    for card, (_, _, plain) in CARDS.items():
        double = {"T4": plain / 32, "RTX 4090": plain / 64}.get(card, plain / 2) * 0.5  # half of the peak: few operations are multiply-adds
        print(f"| {card} | {plain * 1e12 / flops:,.0f} | {double * 1e12 / doubles:,.0f} | {double * 1e12 / (answers * passes * 30):,.0f} |")


if __name__ == "__main__":
    main()
