#!/usr/bin/env bash
# Sourced where something needs a GPU: whether this machine has one, as a device file or in the driver's list, whose file is still to be made.
has_gpu() { compgen -G '/dev/nvidia[0-9]*' >/dev/null || compgen -G '/proc/driver/nvidia/gpus/*' >/dev/null; }
# shellcheck disable=SC2034
no_gpu="no GPU (neither /dev/nvidia0 nor anything in /proc/driver/nvidia/gpus)"
