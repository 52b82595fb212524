#!/usr/bin/env python3
"""Writes schedules_golden.h: the learning rates PyTorch takes. ReduceLROnPlateau as Zoobot configures it (patience 5, a tenth, not below
1e-6) after each epoch of a list of validation losses; a linear warm-up, then half a cosine to a hundredth, at each step.
Run with PyTorch at hand: python3 schedules.py >schedules_golden.h"""
import torch
from torch.optim import lr_scheduler

RATE = 1e-3
# A better one whose gain is within the threshold of 1e-4 is bad; so is an equal one. Five bad ones, then a good one; six bad ones; six
# more at once; then down to the floor.
LOSSES = [2, 1.5, 1.49990, 1.5, 1.6, 1.5, 1.49986, 1.4998, 1.3, 1.4, 1.4, 1.4, 1.4, 1.4, 1.4, 1.2999, 1.35, 1.35, 1.35, 1.35, 1.35, 1.35,
          1.35, 1.2, 1.1, 1.2, 1.2, 1.2, 1.2, 1.2, 1.2, 1.2, 1.2, 1.2, 1.2, 1.2, 1.2, 1.2, 1.2, 1.2, 1.2, 1.2, 1.2, 1.2, 1.2]
STEPS, WARMUP = 25, 5


def optimizer():
    return torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=RATE)


def plateau():
    steps = optimizer()
    schedule = lr_scheduler.ReduceLROnPlateau(steps, patience=5, factor=0.1, min_lr=1e-6)
    for loss in LOSSES:
        schedule.step(loss)
        yield steps.param_groups[0]["lr"]


def cosine(warmup):
    steps = optimizer()
    schedule = lr_scheduler.CosineAnnealingLR(steps, STEPS - warmup - 1, eta_min=RATE / 100)
    if warmup:
        start = lr_scheduler.LinearLR(steps, 1 / warmup, 1, warmup - 1)
        schedule = lr_scheduler.SequentialLR(steps, [start, schedule], [warmup])
    for _ in range(STEPS):
        yield steps.param_groups[0]["lr"]
        steps.step()
        schedule.step()


def table(name, values):
    print(f"static const double {name}[] = {{{', '.join(f'{value:.12g}' for value in values)}}};")


print("/* Written by schedules.py; do not edit. */\n/* clang-format off */")
table("golden_losses", LOSSES)
table("golden_plateau", plateau())
table("golden_cosine", cosine(0))
table("golden_warm_cosine", cosine(WARMUP))
