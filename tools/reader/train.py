"""Trains the reader: `python -m tools.reader.train --minutes 55 --work DIR`.

Two cores and an hour. First random spans that repeat, so that copying emerges; then short passages; then
longer ones. Every few minutes the state goes to DIR, and a run that finds one there goes on from it.

Two attention heads are told where to look, since the language loss alone says too rarely which sentence was
the right one; see `STARTS_LAYER`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.multiprocessing
from tokenizers import Tokenizer
from torch import distributed
from torch.nn import functional

from tools.reader.checkpoint import build_tokenizer, export
from tools.reader.corpus import Generator, Shape
from tools.reader.model import Reader, Size
from tools.reader.packing import FIRST_WEIGHT, MARKS, Batch, Row, batch, repeats, row, width_of
from tools.reader.score import exact_match

SEED = 20240613
# In one layer the end of a sentence looks at its start, in a later one whoever answers looks at the end of
# the sentence that answers. Told so, the model learns to choose in a fraction of the time.
STARTS_LAYER, CHOICES_LAYER = 1, 3


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of the run, up to a share of its time."""

    until: float
    repeats: float  # share of rows that are repeated spans
    shape: Shape
    tokens: int  # a step's


PHASES = (
    Phase(0.04, 0.5, Shape((1,), (8, 20), 3), 4096),
    Phase(0.35, 0.0, Shape((1,), (8, 30), 3, 0.15), 4096),
    Phase(0.65, 0.0, Shape((1, 1, 2), (10, 40), 3, 0.25), 5120),
    Phase(1.00, 0.0, Shape((1, 2, 2, 3, 3), (15, 60), 3, 0.25), 6144),
)


class Feed:
    """Batches of rows of one width."""

    def __init__(self, tokenizer: Tokenizer, seed: str) -> None:
        self.tokenizer = tokenizer
        self.generator = Generator(seed)
        self.waiting: dict[int, list[Row]] = {}

    def _rows(self, phase: Phase) -> list[Row]:
        if self.generator.rng.random() < phase.repeats:
            return [repeats(self.generator.rng, self.tokenizer.get_vocab_size(), 256)]
        sample = self.generator.sample(phase.shape)
        rng = self.generator.rng
        first = rng.randrange(MARKS) if rng.random() < 0.5 else 0
        return [row(self.tokenizer, sample.passages, question, first) for question in sample.questions]

    def next(self, phase: Phase, workers: int) -> Batch:
        """One step's batch: the first width of which there is enough."""
        while True:
            for one in self._rows(phase):
                self.waiting.setdefault(width_of(one), []).append(one)
            for width, rows in self.waiting.items():
                if len(rows) >= (count := max(1, phase.tokens // workers // width)):
                    self.waiting[width] = rows[count:]
                    return batch(rows[:count], steady=True)


def optimizers(model: Reader, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside, AdamW for the rest."""
    inner = [p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n]
    outer = [p for n, p in model.named_parameters() if p.dim() != 2 or "embed" in n]
    return [
        torch.optim.Muon(inner, lr=rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw", ns_steps=5),
        torch.optim.AdamW(outer, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def schedule(done: float) -> float:
    """The factor of the learning rate at a share of the run: up, flat, and down to almost nothing."""
    return min(1.0, done / 0.01 + 0.05) * min(1.0, (1.0 - done) / 0.55 + 0.01)


def phase_at(done: float) -> Phase:
    """The phase of a share of the run."""
    return next(phase for phase in PHASES if done < phase.until or phase is PHASES[-1])


def shared(value: float) -> float:
    """The first worker's value, so that all workers are in the same place of the run."""
    box = torch.tensor([value], dtype=torch.float64)
    distributed.broadcast(box, 0)
    return float(box)


def average_gradients(model: Reader) -> None:
    """Gives every worker the mean of all gradients."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([one.flatten() for one in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for gradient, mean in zip(gradients, flat.split([one.numel() for one in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def train(work: Path, seconds: float, rate: float, size: Size, save_every: float = 240.0) -> None:
    """One worker's run: so many seconds in all, counting those of the state found in `work`."""
    rank, workers = distributed.get_rank(), distributed.get_world_size()
    tokenizer = build_tokenizer(work / "tokenizer.json")
    torch.manual_seed(SEED)
    model = Reader(size)
    optims = optimizers(model, rate)
    state: dict[str, float] = {"step": 0, "tokens": 0, "answers": 0, "spent": 0.0}
    saved = work / "state.pt"
    if saved.exists():
        found = torch.load(saved, weights_only=True)
        model.load_state_dict(found["model"])
        for optim, kept in zip(optims, found["optims"], strict=True):
            optim.load_state_dict(kept)
        state = found["state"]
    feed = Feed(tokenizer, f"{SEED}-{state['step']}-{rank}")
    begun = last_saved = last_told = time.monotonic()
    spent = state["spent"]
    loss_sum, first_sum, choice_sum, told_steps = 0.0, 0.0, 0.0, 0
    while (done := shared((time.monotonic() - begun + spent) / seconds)) < 1.0:
        data = feed.next(phase_at(done), workers)
        for optim in optims:
            for group in optim.param_groups:
                group["lr"] = rate * schedule(done)
        begins, chooses = (model.model.layers[at].self_attn for at in (STARTS_LAYER, CHOICES_LAYER))
        begins.pointers, chooses.pointers = data.starts, data.choices
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(data.ids, data.positions, data.visible, data.at)
        losses = functional.cross_entropy(logits.float(), data.targets, reduction="none")
        # What the model knows already counts less: most of an answer is plain copying.
        weights = data.weights * (1.05 - torch.exp(-losses.detach()))
        loss = (losses * weights).sum() / weights.sum().clamp(min=1.0)
        if len(data.choices.rows):
            loss = loss + 0.3 * begins.misses.mean() + chooses.misses.mean()
            choice_sum += float((chooses.misses.detach() < 0.69).float().mean())
        begins.pointers = chooses.pointers = None
        loss.backward()
        average_gradients(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optim in optims:
            optim.step()
            optim.zero_grad(set_to_none=True)
        answers = data.weights >= 1.0
        loss_sum += float(losses.detach()[answers].mean())
        first_sum += float(losses.detach()[data.weights == FIRST_WEIGHT].mean().nan_to_num())
        told_steps += 1
        state["step"] += 1
        state["tokens"] += data.tokens * workers
        state["answers"] += int(answers.sum()) * workers
        now = time.monotonic()
        state["spent"] = spent + now - begun
        if rank == 0 and now - last_told > 20:
            told = {
                **state,
                "loss": round(loss_sum / told_steps, 4),
                "first": round(first_sum / told_steps, 4),
                "chosen": round(choice_sum / told_steps, 4),
                "done": round(done, 3),
            }
            print(json.dumps(told), flush=True)
            loss_sum, first_sum, choice_sum, told_steps, last_told = 0.0, 0.0, 0.0, 0, now
        if rank == 0 and now - last_saved > save_every:
            last_saved = now
            _save(work, model, optims, state, tokenizer, size)
    if rank == 0:
        _save(work, model, optims, state, tokenizer, size)


def _save(
    work: Path,
    model: Reader,
    optims: list[torch.optim.Optimizer],
    state: dict[str, float],
    tokenizer: Tokenizer,
    size: Size,
) -> None:
    aside = work / "state.pt.new"
    kept = {"model": model.state_dict(), "optims": [one.state_dict() for one in optims], "state": state}
    torch.save(kept, aside)
    os.replace(aside, work / "state.pt")
    export(model, size, work / "tokenizer.json", work / "export")
    scores = {"seen": exact_match(model, tokenizer, "seen", 24)}
    print(json.dumps({"saved": state["step"], **scores}), flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.reader.train", description="Trains the reader.")
    parser.add_argument(
        "--work", type=Path, required=True, help="where state and result go; resumed if it has a state"
    )
    parser.add_argument("--minutes", type=float, default=55.0, help="length of the run")
    parser.add_argument("--rate", type=float, default=3e-3, help="highest learning rate")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread")
    options = parser.parse_args()
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    build_tokenizer(work / "tokenizer.json")
    (work / "meeting").unlink(missing_ok=True)
    arguments = (options.workers, work, options.minutes * 60, options.rate)
    torch.multiprocessing.spawn(_worker, arguments, nprocs=options.workers)


def _worker(rank: int, workers: int, work: Path, seconds: float, rate: float) -> None:
    """Threads would wait for each other at every operation, processes do once a step."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{work.resolve()}/meeting", rank=rank, world_size=workers)
    train(work, seconds, rate, Size())
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
