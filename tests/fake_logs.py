"""Run folders as training leaves them, made in milliseconds with the project's own event writer."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proofrun.events import Checkpoint, Eval, Mark, Resume, RunEnd, RunStart, Train
from proofrun.recipe import Recipe
from proofrun.runs import Plan, RunName, World, apply_overrides, find_recipe
from proofrun.writer import Clock, EventWriter

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
EVAL_S = 1.5


class FakeClock(Clock):
    """A clock that goes only when told to."""

    def __init__(self, day: int = 0) -> None:
        super().__init__(0.0)
        self.from_s = 1.7e9 + 86400 * day
        self.wall = 3.0  # imports and start-up
        self.mark = 0.0

    def go(self, seconds: float, training: bool = True) -> None:
        self.wall += seconds
        if training:
            self.mark += seconds
            self.train_s += seconds

    def readings(self) -> dict[str, float]:
        return {
            "wall_s": self.wall,
            "mark_s": self.mark,
            "train_s": self.train_s,
            "t_wall": self.from_s + self.wall,
        }


@dataclass
class FakeRun:
    """What a fake run should look like; `write` makes its folder under `logs`."""

    name: str
    number: int = 1
    seed: int = 0
    images_per_s: float = 200.0
    top1: float = 98.61
    top5: float = 100.0
    wait_share: float = 0.02
    device_name: str = "Example CPU @ 2.70GHz"
    purpose: str = "full"
    max_steps: int | None = None
    overrides: list[str] = field(default_factory=list)
    loader: str = "dali"
    status: str | None = "finished"  # None: still running
    stop_epoch: float | None = None
    killed_at: int | None = None  # epoch after which it is killed and goes on
    count: int | None = None
    message: str = ""
    windows_per_epoch: int = 4
    recipe: Recipe | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    after_kill: dict[str, Any] = field(default_factory=dict)  # fields of the second run_start
    more: dict[str, Any] = field(default_factory=dict)

    def plan(self) -> Plan:
        name = RunName.parse(self.name)
        recipe = self.recipe or find_recipe(str(name), RECIPES)[2]
        recipe, overrides = apply_overrides(recipe, self.overrides)
        fields: dict[str, Any] = {
            "run": self.name,
            "recipe_dir": f"recipes/{recipe.name.lower()}",
            "recipe": recipe,
            "precision": name.precision,
            "world": World(cards=name.cards),
            "device": name.device,
            "seed": self.seed,
            "loader": self.loader,
            "purpose": self.purpose,
            "max_steps": self.max_steps,
            "overrides": overrides,
            "data_dir": "data",
            "data_hash": "0" * 64,
        }
        return Plan(**(fields | self.more))

    def write(self, logs: Path) -> Path:
        """Make `logs/<run name>/<NNN>/` with events, plan, provenance and status."""
        folder = logs / self.name / f"{self.number:03d}"
        folder.mkdir(parents=True)
        plan = self.plan()
        (folder / "recipe.yaml").write_text(plan.to_yaml(), encoding="utf-8")
        (folder / "provenance.json").write_text('{"commit": "0000000"}\n', encoding="utf-8")
        _Writer(self, plan, folder / "events.jsonl").run()
        if self.status:
            code = {"finished": 0, "failed": 41, "interrupted": 75}[self.status]
            noted = {"status": self.status, "code": code, "message": self.message}
            (folder / "status.json").write_text(json.dumps(noted), encoding="utf-8")
        return folder


class _Writer:
    def __init__(self, fake: FakeRun, plan: Plan, path: Path) -> None:
        self.fake, self.plan, self.path = fake, plan, path
        self.clock = FakeClock(fake.number - 1)
        self.out = EventWriter(path, self.clock)
        self.steps_per_epoch = plan.recipe.data.train_images // plan.global_batch
        self.epochs = plan.recipe.schedule.epochs
        self.step = 0
        self.marks = list(plan.recipe.marks_s)

    @property
    def epoch(self) -> float:
        return self.step / self.steps_per_epoch

    def emit(self, kind: Any, **fields: Any) -> Any:
        return self.out.write(kind, step=self.step, epoch=self.epoch, **fields)

    def start(self, **changed: Any) -> None:
        plan = self.plan
        fields: dict[str, Any] = dict(
            run=plan.run,
            number=self.fake.number,
            plan=json.loads(plan.model_dump_json(by_alias=True)),
            overrides=plan.overrides,
            config_hash=plan.config_hash(),
            provenance=self.fake.provenance,
            world_size=plan.world.size,
            nodes=plan.world.nodes,
            device=plan.device,
            device_name=self.fake.device_name,
            per_card_batch=plan.per_card_batch,
            global_batch=plan.global_batch,
            lr=plan.lr,
            steps_per_epoch=self.steps_per_epoch,
            parameters=plan.recipe.model.parameters,
            amp_dtype=self.amp_dtype(),
        )
        self.emit(RunStart, **(fields | changed))

    def amp_dtype(self) -> str | None:
        on_cpu = self.plan.device == "CPU"
        dtype = "bfloat16" if on_cpu else self.plan.recipe.precision.amp.dtype
        return dtype if self.plan.precision == "AMP" else None

    def run(self) -> None:
        fake = self.fake
        self.start()
        last = self.epochs * self.steps_per_epoch
        last = min(last, fake.max_steps or last)
        if fake.stop_epoch is not None:
            last = min(last, round(fake.stop_epoch * self.steps_per_epoch))
        short = fake.max_steps is not None
        size = 5 if short else max(1, self.steps_per_epoch // fake.windows_per_epoch)
        saved = None
        while self.step < last:
            boundary = (self.step // self.steps_per_epoch + 1) * self.steps_per_epoch
            self.window(min(size, last - self.step, boundary - self.step))
            if self.step % self.steps_per_epoch == 0:
                self.evaluate("epoch", [self.plan.recipe.data.eval[0].name])
                saved = self.emit(Checkpoint, why="epoch", path="e.pt", bytes=1, save_s=0.1)
            if saved and fake.killed_at == round(self.epoch, 3):
                fake.killed_at = None
                self.kill(saved.seq, saved.step, size)
        if fake.status == "finished" and not short:
            self.evaluate("final", [p.name for p in self.plan.recipe.data.eval])
        if fake.status:
            code = {"finished": 0, "failed": 41, "interrupted": 75}[fake.status]
            self.emit(RunEnd, status=fake.status, code=code, message=fake.message)
        self.out.close()

    def kill(self, seq: int, step: int, size: int) -> None:
        """Two windows that the kill makes void, then a new process from the checkpoint."""
        self.window(size)
        self.window(size)
        self.out.close()
        self.out = EventWriter(self.path, self.clock)
        self.step = step
        self.start(**self.fake.after_kill)
        self.emit(Resume, from_seq=seq, from_step=step, path="e.pt")

    def window(self, steps: int) -> None:
        images = steps * self.plan.global_batch
        wave = 1 + 0.02 * math.sin(1.7 * self.step + self.fake.seed)
        first = self.step == 0
        seconds = images / (self.fake.images_per_s * wave) * (1.5 if first else 1.0)
        self.step += steps
        self.clock.go(seconds)
        ce = self.ce()
        loss = ce + 0.4 * (self.plan.recipe.loss.label_smoothing > 0)
        progress = self.epoch / self.epochs
        self.emit(
            Train,
            loss=loss,
            ce=ce,
            lr=self.plan.lr * (1 + math.cos(math.pi * min(1.0, progress))) / 2,
            steps=steps,
            images=images,
            window_s=seconds,
            data_wait_s=seconds * self.fake.wait_share,
            warmup=first,
        )
        while self.marks and self.clock.mark >= self.marks[0]:
            target = self.marks.pop(0)
            protocol = self.plan.recipe.data.eval[0].name
            found = self.evaluate("mark", [protocol])
            self.emit(
                Mark,
                target_s=target,
                loss=loss,
                ce=ce,
                top1=found.top1,
                top5=found.top5,
                count=found.count,
                protocol=protocol,
            )

    def learned(self) -> float:
        return (1 - math.exp(-4 * self.epoch / self.epochs)) / (1 - math.exp(-4))

    def ce(self) -> float:
        worst = math.log(self.plan.recipe.data.classes)
        return 0.05 * worst + 0.95 * worst * (1 - self.learned())

    def evaluate(self, why: str, protocols: list[str]) -> Any:
        listed = self.plan.recipe.data.val_images
        count = self.fake.count or listed
        self.clock.go(EVAL_S, training=False)
        for protocol in protocols:
            correct1 = round(count * self.learned() * self.fake.top1 / 100)
            correct5 = max(correct1, round(count * self.learned() * self.fake.top5 / 100))
            key = f"{self.fake.seed} {self.fake.top1} {self.step} {protocol}"
            event = self.emit(
                Eval,
                why=why,
                protocol=protocol,
                top1=100 * correct1 / count,
                top5=100 * correct5 / count,
                loss=self.ce(),
                correct1=correct1,
                correct5=correct5,
                count=count,
                expected=listed,
                prediction_hash=hashlib.sha256(key.encode()).hexdigest(),
                eval_s=EVAL_S,
                parts=self.parts(protocol, count),
            )
        return event

    def parts(self, protocol: str, count: int) -> list[dict[str, Any]]:
        """What a source scores that drops partial batches; as good as the whole."""
        (spec,) = [p for p in self.plan.recipe.data.eval if p.name == protocol]
        if spec.drops is None:
            return []
        cards, batch = spec.drops.cards, spec.drops.per_card
        kept = cards * (count // cards // batch * batch)
        share = self.learned() * self.fake.top1 / 100
        return [
            {"shards": name, "correct1": hits, "correct5": hits, "count": kept}
            for name, hits in (("blocks", round(kept * share)), ("every n-th", int(kept * share)))
        ]


def quickstart(logs: Path) -> None:
    """What the quickstart leaves: two full rehearsals, and short runs for the other cells."""
    for model, epochs, speed in (("Inceptionv2", 6, 190.0), ("GoogLeNet", 10, 320.0)):
        for precision, faster in (("FP32", 1.0), ("AMP", 1.4)):
            for cards in (1, 2):
                plural = "s" if cards > 1 else ""
                full = precision == "AMP" and cards == 1
                FakeRun(
                    f"{model}-Digits_{precision}_{epochs}E_{cards}CPU{plural}_Train",
                    images_per_s=speed * faster * cards**0.9,
                    purpose="full" if full else "throughput",
                    max_steps=None if full else 20,
                    wait_share=0.02 * cards,
                ).write(logs)


def imagenet(logs: Path, top1: float = 71.90, images_per_s: float = 13100.0, **more: Any) -> None:
    """GoogLeNet's published runs on 1 and 8 cards, as if the claim were true."""
    fields: dict[str, Any] = {"device_name": "Ascend910", "top1": top1, "top5": 90.8} | more
    FakeRun("GoogLeNet_AMP_300E_8NPUs_Train", images_per_s=images_per_s, **fields).write(logs)
    FakeRun("GoogLeNet_AMP_300E_1NPU_Train", images_per_s=1700.0, **fields).write(logs)
