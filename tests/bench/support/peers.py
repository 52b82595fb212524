"""Times the peers of ./bench: PyTorch and ONNX Runtime on the same net, heads and threads as bench_compute.

Usage: peers.py THREADS. Reads one question per line and answers with a number, or with "- REASON" where there is none:
  trunk onnx|torch|compiled BATCH SECONDS    images/s, EfficientNet-B0, 1 channel, 224 px
  pixels FOLDER CATALOGUE SIDE COUNT         writes FOLDER/images: the centres of the catalogue's first COUNT images, grey, 0..1
  agree FOLDER [NETWORK WEIGHTS SIDE]        1 / relative error of timm's embeddings from exported weights to those beside them
  train torch|compiled BATCH SECONDS         images/s of whole steps: forward, backward, AdamW
  head-fit SECONDS                           galaxies through one head, both ways, /s/thread; 34 answers, batch 64
  head-score SECONDS                         galaxies/s/thread: 30 masks, entropies of one vote
  device-trunk torch|compiled fp32|tf32|bf16 BATCH SECONDS   trunk on the first GPU, images and embeddings staying there
  device-train torch|compiled fp32|tf32 BATCH SECONDS        train on the first GPU, images staying there
The best part of at least 0.2 s counts, as in bench_compute.
"""
import logging
import os
import sys
import tempfile
import time
import warnings

THREADS = int(sys.argv[1])
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(THREADS)
warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

import numpy
import torch

torch.set_num_threads(THREADS)
torch.set_num_interop_threads(1)
torch.manual_seed(1)
ANSWERS = [3, 2, 2, 3, 5, 3, 3, 3, 6, 4]  # answers of each question of decals_dr5
INPUTS, PASSES, DROPOUT = 1280, 30, 0.2


def best_rate(seconds, count, call):
    """Most items per second; `call` works on `count` of them."""
    call()
    best, begin = 0.0, time.perf_counter()
    while (part := time.perf_counter()) - begin < seconds:
        calls = 0
        while (passed := time.perf_counter() - part) < 0.2:
            call()
            calls += 1
        best = max(best, count * calls / passed)
    return best


class Peers:
    def __init__(self):
        self.made = {}

    def once(self, name, make):
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]

    def net(self, training):
        import timm
        net = self.once(f"net {training}", lambda: timm.create_model("efficientnet_b0", in_chans=1, num_classes=0))
        return net.train(training)

    def session(self):
        import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "net.onnx")
            torch.onnx.export(self.net(False), (torch.rand(2, 1, 224, 224),), path, input_names=["x"],
                              output_names=["y"], dynamic_axes={"x": {0: "n"}, "y": {0: "n"}}, dynamo=False)
            return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def trunk(self, kind, batch, seconds):
        batch = int(batch)
        images = torch.rand(batch, 1, 224, 224)
        if kind == "onnx":
            session, plain = self.once("session", self.session), images.numpy()
            return best_rate(float(seconds), batch, lambda: session.run(None, {"x": plain}))
        net = self.net(False)
        if kind == "compiled":
            net = self.once(f"compiled {batch}", lambda: torch.compile(net, dynamic=False))
        with torch.inference_mode():
            return best_rate(float(seconds), batch, lambda: net(images))

    def pixels(self, folder, catalogue, side, count):
        import csv
        from PIL import Image
        side, rows = int(side), []
        with open(catalogue, newline="") as file:
            paths = [row["file_loc"] for row, _ in zip(csv.DictReader(file), range(int(count)))]
        for path in paths:
            pixels = numpy.asarray(Image.open(path).convert("RGB"), numpy.float32).mean(axis=2) / 255
            top, left = (length // 2 - side // 2 for length in pixels.shape)
            rows.append(pixels[top:top + side, left:left + side])
        numpy.stack(rows).astype(numpy.float32).tofile(f"{folder}/images")
        return len(rows)

    def agree(self, folder, network="efficientnet_b0", weights=None, side=224):
        import timm
        net = timm.create_model(network, in_chans=1, num_classes=0)
        odd = timm.models.load_checkpoint(net, weights or f"{folder}/trunk.safetensors", strict=False)
        if odd.missing_keys or any(not key.startswith("classifier.") for key in odd.unexpected_keys):
            raise ValueError(f"weights do not fit: {odd}")
        images = numpy.fromfile(f"{folder}/images", numpy.float32).reshape(-1, 1, int(side), int(side))
        ours = torch.from_numpy(numpy.fromfile(f"{folder}/embeddings", numpy.float32).reshape(len(images), -1))
        with torch.inference_mode():
            theirs = net.eval()(torch.from_numpy(images))
        return float(theirs.norm() / (ours - theirs).norm().clamp(min=1e-30))

    def train(self, kind, batch, seconds):
        batch = int(batch)
        images, slope = torch.rand(batch, 1, 224, 224), torch.rand(batch, INPUTS) - 0.5
        net = self.net(True)
        if kind == "compiled":
            net = self.once("compiled training", lambda: torch.compile(net, dynamic=False))
        optimizer = torch.optim.AdamW(self.net(True).parameters(), lr=1e-4)

        def step():
            optimizer.zero_grad()
            (net(images) * slope).mean().backward()
            optimizer.step()
        return best_rate(float(seconds), batch, step)

    def device_net(self, kind, precision, training):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "fp32"
        torch.backends.cudnn.benchmark = True
        torch._dynamo.reset()
        import timm
        net = timm.create_model("efficientnet_b0", in_chans=1, num_classes=0).cuda().to(memory_format=torch.channels_last)
        net.train(training)
        return net if kind == "torch" else torch.compile(net, dynamic=False)

    def device_trunk(self, kind, precision, batch, seconds):
        batch = int(batch)
        net, images = self.device_net(kind, precision, False), torch.rand(batch, 1, 224, 224, device="cuda")
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
            for _ in range(5):
                net(images)
            graph = torch.cuda.CUDAGraph()  # as ours
            with torch.cuda.graph(graph):
                net(images)

            def many():
                for _ in range(10):
                    graph.replay()
                torch.cuda.synchronize()
            return best_rate(float(seconds), 10 * batch, many)

    def device_train(self, kind, precision, batch, seconds):
        batch = int(batch)
        net = self.device_net(kind, precision, True)
        images, slope = torch.rand(batch, 1, 224, 224, device="cuda"), torch.rand(batch, INPUTS, device="cuda") - 0.5
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)

        def many():
            for _ in range(10):
                optimizer.zero_grad()
                (net(images) * slope).mean().backward()
                optimizer.step()
            torch.cuda.synchronize()
        return best_rate(float(seconds), 10 * batch, many)

    def head_fit(self, seconds):
        """Dropout, linear, concentrations 1..101, Dirichlet-multinomial loss, AdamW."""
        batch, answers = 64, sum(ANSWERS)
        linear = torch.nn.Linear(INPUTS, answers)
        optimizer = torch.optim.AdamW(linear.parameters(), lr=3e-4, weight_decay=0.1)
        rows, votes = torch.randn(4096, INPUTS), torch.randint(0, 10, (4096, answers)).float()
        question = torch.repeat_interleave(torch.arange(len(ANSWERS)), torch.tensor(ANSWERS))
        sums = torch.nn.functional.one_hot(question).float()

        def epoch():
            for batch_rows in torch.randperm(len(rows)).split(batch):
                z = torch.nn.functional.dropout(rows[batch_rows], DROPOUT)
                alpha, k = 1 + 100 * torch.sigmoid(linear(z)), votes[batch_rows]
                a, n = alpha @ sums, k @ sums
                loss = (torch.lgamma(a + n) - torch.lgamma(a)).sum() - (torch.lgamma(alpha + k) - torch.lgamma(alpha)).sum()
                optimizer.zero_grad()
                (loss / batch).backward()
                optimizer.step()
        return best_rate(float(seconds), len(rows), epoch) / THREADS

    def head_score(self, seconds):
        batch, answers = 1024, sum(ANSWERS)
        masked = torch.randn(PASSES, answers, INPUTS) * (torch.rand(PASSES, 1, INPUTS) >= DROPOUT) / (1 - DROPOUT) * 0.05
        masked, rows = masked.reshape(PASSES * answers, INPUTS), torch.randn(batch, INPUTS)

        def score():
            alpha = 1 + 100 * torch.sigmoid(rows @ masked.T).reshape(batch, PASSES, answers)
            total = torch.zeros(batch)
            for a in alpha.split(ANSWERS, dim=2):
                p = a / a.sum(2, keepdim=True)
                mean = p.mean(1)
                total += (p * p.log()).sum(2).mean(1) - (mean * mean.log()).sum(1)
            return total
        with torch.inference_mode():
            return best_rate(float(seconds), batch, score) / THREADS


def main():
    peers = Peers()
    for line in sys.stdin:
        verb, *arguments = line.split()
        try:
            answer = f"{getattr(peers, verb.replace('-', '_'))(*arguments):.6g}"
        except Exception as error:
            answer = "- " + (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
        print(answer, flush=True)


main()
