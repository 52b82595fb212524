#!/usr/bin/env python3
"""Plants junk in a catalogue for `triaged replay`: noise, streaks, blank, half cut off and inverted images that volunteers would call artifacts.
Needs Pillow and NumPy.

    junk.py CATALOGUE SHARE FOLDER OUT    OUT has the rows of CATALOGUE and, per 100 of them, 100 SHARE rows more, named junk-*
"""
import csv
import pathlib
import sys

import numpy
from PIL import Image

VOTES = 40  # of simulated volunteers, all for the answer that ends in _artifact


def image(kind, galaxy, random):
    if kind == "noise":
        return random.integers(0, 256, galaxy.shape)
    if kind == "blank":
        return numpy.full(galaxy.shape, random.integers(0, 256))
    if kind == "inverted":
        return 255 - galaxy
    spoilt = galaxy.copy()
    if kind == "half":
        spoilt[: len(galaxy) // 2] = 0
    else:  # a streak from edge to edge
        left, right = random.integers(0, len(galaxy), 2)
        for column in range(len(galaxy)):
            row = left + (right - left) * column // len(galaxy)
            spoilt[max(0, row - 6):row + 6, column] = 255
    return spoilt


def main(catalogue, share, folder, out):
    random = numpy.random.default_rng(1)
    rows = list(csv.DictReader(open(catalogue)))
    columns = list(rows[0])
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    kinds = ("noise", "streak", "blank", "half", "inverted")
    for number in range(round(share * len(rows))):
        galaxy = numpy.asarray(Image.open(rows[number * 7 % len(rows)]["file_loc"]).convert("L"))
        path = f"{folder}/junk-{number}.png"
        Image.fromarray(image(kinds[number % len(kinds)], galaxy, random).astype("uint8")).save(path)
        junk = {column: VOTES if column.endswith("_artifact") else 0 for column in columns}
        rows.append(junk | {"id_str": f"junk-{number}", "file_loc": path})
    with open(out, "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


main(sys.argv[1], float(sys.argv[2]), sys.argv[3], sys.argv[4])
