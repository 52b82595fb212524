#!/usr/bin/env python3
"""Writes small.safetensors by Python's own safetensors: the small net of safetensors_test.c, numbered in the net's order. Its tensors lie
in the file in another order. Run with safetensors and NumPy at hand: python3 safetensors_file.py"""
import pathlib

import numpy
from safetensors.numpy import save_file

SHAPES = {"conv_stem.weight": (8, 3, 3, 3), "bn1.weight": (8,), "bn1.bias": (8,), "bn1.running_mean": (8,), "bn1.running_var": (8,),
          "blocks.0.0.conv_dw.weight": (8, 1, 5, 5), "blocks.0.0.se.conv_reduce.weight": (2, 8, 1, 1), "blocks.0.0.se.conv_reduce.bias": (2,),
          "blocks.0.0.se.conv_expand.weight": (8, 2, 1, 1), "blocks.0.0.se.conv_expand.bias": (8,)}
tensors, at = {}, 0
for name, shape in SHAPES.items():
    count = int(numpy.prod(shape))
    tensors[name] = (numpy.arange(at, at + count, dtype=numpy.float32) * 0.25 - 17).reshape(shape)
    at += count
tensors["bn1.num_batches_tracked"] = numpy.array(3, numpy.int64)
save_file(tensors, pathlib.Path(__file__).with_name("small.safetensors"), {"format": "pt", "architecture": "small"})
