"""Trains the story model, or its SiLU twin.

    python train.py --out RUN --text train.txt.xz --heldout heldout.txt.xz [--activation silu] [--steps N]
    python train.py --out RUN --resume RUN/checkpoint.pt                     # goes on where it was
    python train.py --out FINAL --resume RUN/checkpoint.pt --decay 300       # the learning rate falls to zero, and done

The learning rate rises, then stays (README.md says why). Everything is a function of the settings and the seed; they are
kept in the checkpoint, and what the command line gives beside --resume overrides them. Ctrl-C and SIGTERM save first.
"""

import argparse
import dataclasses
import json
import math
import os
import pathlib
import signal
import time

# A thread that waits must not burn what the thread it waits for could use: the training runs beside other work.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import data  # noqa: E402
from model import Model, Shape, density, soft_density  # noqa: E402


@dataclasses.dataclass
class Settings:
    activation: str = "relu"
    text: str = ""
    heldout: str = ""
    tokenizer: str = ""
    seed: int = 1
    context: int = 512
    batch: int = 8
    lr: float = 2e-3
    weight_decay: float = 0.1
    warmup: int = 100
    steps: int = 1_000_000
    sparsity: float = 0.955
    ramp: int = 1000
    heldout_windows: int = 64
    # Set by --decay: the step at which the learning rate begins to fall, and for how many steps it does.
    decay_start: int = -1
    decay: int = 0

    def end(self):
        return self.decay_start + self.decay if self.decay else self.steps

    def rate(self, step):
        """Learning rate: linear warm-up, constant, then 1 - sqrt (Hagele et al., arXiv 2405.18392)."""
        rate = self.lr * min(1.0, (step + 1) / self.warmup)
        if self.decay and step >= self.decay_start:
            rate *= 1.0 - math.sqrt((step - self.decay_start) / self.decay)
        return rate

    def target_density(self, step):
        """Falls from one half, where random weights are, to 1 - sparsity, by equal factors."""
        done = min(1.0, step / self.ramp)
        return 0.5 ** (1.0 - done) * (1.0 - self.sparsity) ** done


@dataclasses.dataclass
class Pressure:
    """The weight of the sparsity penalty: a controller that keeps the mean density on its target.

    Proportional and integral in the logarithms, so that it needs no scale; what weight a density costs changes by orders of
    magnitude in the course of a training, and nobody knows it in advance.
    """

    integral: float = math.log(5e-3)
    proportional: float = 0.0

    def weight(self):
        return math.exp(min(self.integral + self.proportional, 0.0))

    def update(self, found, target):
        error = math.log(max(found, 1e-4) / target)
        self.proportional = error
        self.integral = min(max(self.integral + 5e-3 * error, math.log(1e-5)), 0.0)


class Training:
    def __init__(self, settings, out, device, compiled):
        self.settings, self.out, self.device = settings, pathlib.Path(out), device
        self.step = self.windows = self.tokens = 0
        self.pressure = Pressure()
        torch.manual_seed(settings.seed)
        self.model = Model(Shape(activation=settings.activation, context=settings.context)).to(device)
        matrices = [p for p in self.model.parameters() if p.dim() > 1]
        vectors = [p for p in self.model.parameters() if p.dim() == 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            betas=(0.9, 0.98),
            fused=True,
        )
        self.objective = torch.compile(self.losses) if compiled else self.losses
        tokenizer = data.load_tokenizer(settings.tokenizer, [settings.text])
        self.ids = data.load_ids(settings.text, tokenizer, pathlib.Path(settings.tokenizer).parent)
        self.heldout = data.load_ids(settings.heldout, tokenizer, pathlib.Path(settings.tokenizer).parent)

    def losses(self, windows, weight):
        """The objective, the cross entropy in nats, and the density per layer."""
        with torch.autocast(self.device, torch.bfloat16):
            logits, gates = self.model(windows[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1).float(), windows[:, 1:].flatten())
        total = loss
        if self.settings.activation == "relu":
            total = loss + weight * soft_density(gates).mean()
        with torch.no_grad():
            return total, loss.detach(), density(gates)

    def train_step(self):
        """One step; returns the cross entropy and the density per layer."""
        s = self.settings
        windows = torch.from_numpy(data.batch(self.ids, self.windows, s.batch, s.context, s.seed)).to(self.device)
        weight = torch.tensor(self.pressure.weight(), device=self.device)
        total, loss, found = self.objective(windows, weight)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = s.rate(self.step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if s.activation == "relu":
            self.pressure.update(float(found.mean()), s.target_density(self.step))
        self.step += 1
        self.windows += s.batch
        self.tokens += s.batch * s.context
        return float(loss), found.tolist()

    @torch.no_grad()
    def evaluate(self):
        """Mean cross entropy in nats, and density per layer, over the first held-out windows."""
        s, rows = self.settings, []
        for windows in data.heldout_batches(self.heldout, s.batch, s.context, s.heldout_windows):
            _, loss, found = self.losses(torch.from_numpy(windows).to(self.device), 0.0)
            rows.append(torch.cat([loss[None], found]) * len(windows))
        loss, *found = (torch.stack(rows).sum(0) / s.heldout_windows).tolist()
        return loss, found

    def save(self, name, weights_only=False):
        kept = {"shape": dataclasses.asdict(self.model.shape), "settings": dataclasses.asdict(self.settings)}
        kept |= {"step": self.step, "tokens": self.tokens, "model": self.model.state_dict()}
        if not weights_only:
            kept |= {"windows": self.windows, "pressure": dataclasses.asdict(self.pressure)}
            kept |= {"optimizer": self.optimizer.state_dict()}
        data.write_atomically(self.out / name, lambda part: torch.save(kept, part))

    def restore(self, kept):
        self.model.load_state_dict(kept["model"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.step, self.windows, self.tokens = kept["step"], kept["windows"], kept["tokens"]
        self.pressure = Pressure(**kept["pressure"])

    def log(self, **entry):
        entry = {"step": self.step, "tokens": self.tokens} | entry
        with open(self.out / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def rounded(values, digits=4):
    return [round(v, digits) for v in values]


def train(training, save_minutes, log_every, milestone):
    stop = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.append(True))
    saved = started = time.monotonic()
    losses = []
    while training.step < training.settings.end() and not stop:
        loss, found = training.train_step()
        if not math.isfinite(loss):
            raise RuntimeError(f"the loss of step {training.step} is {loss}; the last checkpoint is sound")
        losses.append(loss)
        if training.step % log_every == 0:
            now = time.monotonic()
            training.log(
                loss=round(sum(losses) / len(losses), 4),
                sparsity=rounded(1.0 - d for d in found),
                weight=round(training.pressure.weight(), 6),
                lr=training.settings.rate(training.step - 1),
                tokens_per_second=round(len(losses) * training.settings.batch * training.settings.context / (now - started)),
            )
            losses, started = [], now
        if training.step % milestone == 0 or training.step == training.settings.end():
            loss, found = training.evaluate()
            training.log(heldout_loss=round(loss, 4), heldout_sparsity=rounded(1.0 - d for d in found))
            training.save(f"step-{training.step:06}.pt", weights_only=True)
        if time.monotonic() - saved > 60 * save_minutes:
            training.save("checkpoint.pt")
            saved = time.monotonic()
    training.save("checkpoint.pt")
    print(f"{training.out}: {training.step} steps, {training.tokens / 1e6:.1f} M tokens")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for checkpoints and log.jsonl")
    parser.add_argument("--resume", type=pathlib.Path, help="checkpoint to go on from")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--no-compile", action="store_true", help="do without torch.compile, which needs a C++ compiler")
    parser.add_argument("--save-minutes", type=float, default=5)
    parser.add_argument("--log-every", type=int, default=10, help="steps")
    parser.add_argument("--milestone", type=int, default=250, help="steps between held-out losses and kept weights")
    for field in dataclasses.fields(Settings):
        if field.name != "decay_start":
            parser.add_argument("--" + field.name.replace("_", "-"), type=field.type, help=f"default {field.default}")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    given = {f.name: v for f in dataclasses.fields(Settings) if (v := getattr(args, f.name, None)) is not None}
    kept = torch.load(args.resume, map_location=args.device, weights_only=True) if args.resume else None
    settings = Settings(**(kept["settings"] | given if kept else given))
    if "decay" in given:
        if not kept:
            parser.error("--decay needs --resume")
        settings.decay_start = kept["step"]
    if not settings.text or not settings.heldout:
        parser.error("--text and --heldout are needed")
    settings.tokenizer = settings.tokenizer or str(args.out / "tokenizer.json")
    args.out.mkdir(parents=True, exist_ok=True)
    training = Training(settings, args.out, args.device, not args.no_compile)
    if kept:
        training.restore(kept)
    train(training, args.save_minutes, args.log_every, args.milestone)


if __name__ == "__main__":
    main()
