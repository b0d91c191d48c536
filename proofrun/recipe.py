"""The schema of `recipes/<model>/recipe.yaml`. Torch-free; `proofrun.recipe_yaml` reads the file.

A recipe file says everything about one network's published training; its `rehearsal` says only in
what the run on the embedded digits differs, each of its `variants` in what one on another data set
does. `load_recipe` returns a complete `Recipe` for each. A typo is refused with its line.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from proofrun.errors import RecipeError

Precision = Literal["FP32", "TF32", "AMP", "BF16", "FP16"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=16, le=4096)]  # pixels of a network's input
Area = Annotated[float, Field(gt=0, le=1)]
Epoch = Annotated[float | int, Field(gt=0)]  # counted from the start; 37.5 is amid the 38th


class Strict(BaseModel):
    """Base of every section: unknown keys are errors, values keep their type and never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class Network(Strict):
    """`graph` is the function in the recipe's model.py, `options` its arguments."""

    graph: str
    options: dict[str, bool | int | float | str] = {}
    parameters: Count = Field(description="at 1000 classes")


class ColorJitter(Strict):
    """Factors drawn from [1 - x, 1 + x]; hue is a fraction of a turn, drawn from [-x, x]."""

    brightness: Fraction
    contrast: Fraction
    saturation: Fraction
    hue: Annotated[float, Field(ge=0, le=0.5)]


class RandomArea(NamedTuple):
    """A crop of any place and size: smallest and largest share of the image, and width / height."""

    area: tuple[float, float]
    ratio: tuple[float, float]


class PaddedPlace(NamedTuple):
    """A crop as large as the image, from anywhere in the image with a black border of `pixels`."""

    pixels: int


class TrainInput(Strict):
    """Crop, resize to a square, flip, jitter. The crop has area and ratio, or else a padding."""

    image_size: Side
    crop_area: tuple[Area, Area] | None = None
    crop_ratio: tuple[Positive, Positive] | None = None
    # left out where there is none: recipes, and hashes of runs, are what they were without it
    crop_padding: Count | None = Field(default=None, le=4096, exclude_if=lambda x: x is None)
    interpolation: Literal["bilinear"]
    antialias: bool
    flip_probability: Fraction
    color_jitter: ColorJitter | None = None

    @property
    def crop(self) -> RandomArea | PaddedPlace:
        """How a training image is cropped, at its own size: everything else comes after it."""
        if self.crop_area is not None and self.crop_ratio is not None:
            return RandomArea(self.crop_area, self.crop_ratio)
        assert self.crop_padding is not None
        return PaddedPlace(self.crop_padding)

    @model_validator(mode="after")
    def _one_crop(self) -> Self:
        padded = self.crop_padding is not None
        if {self.crop_area is None, self.crop_ratio is None} != {padded}:
            raise ValueError("give crop_area and crop_ratio, or else crop_padding, the others null")
        for name in ("crop_area", "crop_ratio"):
            low, high = getattr(self, name) or (0, 0)
            if low > high:
                raise ValueError(f"{name}: {low} is larger than {high}; the smaller comes first")
        return self


class PartialBatches(Strict):
    """A source whose cards each drop their last partial batch scores fewer images than there are.

    `cards` and images `per_card` a batch, as the source evaluates. How it cuts the list into shards
    is often not published, so `proofrun.evaluate` scores every rule in use.
    """

    cards: Count
    per_card: Count


class EvalProtocol(Strict):
    """How a validation image becomes a network input. `squash` ignores the aspect ratio."""

    name: str
    resize: Literal["shorter_side", "squash"]
    resize_to: Side
    crop: Side
    interpolation: Literal["bilinear"]
    antialias: bool
    drops: PartialBatches | None = Field(
        default=None, description="what the source leaves out; scored beside all images"
    )

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.crop > self.resize_to:
            raise ValueError(f"crop {self.crop} is larger than resize_to {self.resize_to}")
        return self


class Normalize(Strict):
    """Per-channel mean and standard deviation of RGB in [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[Positive, Positive, Positive]


class Data(Strict):
    name: str = Field(pattern=r"^[A-Za-z0-9]+$")
    classes: Annotated[int, Field(ge=2)]
    train_images: Count
    val_images: Count
    train: TrainInput
    eval: Annotated[tuple[EvalProtocol, ...], Field(min_length=1)] = Field(
        description="the first is the recipe's own; the others are scored at the end beside it"
    )
    normalize: Normalize


class LearningRate(Strict):
    """`base` as published; with `per_images` it is scaled by global batch / per_images."""

    base: Positive
    per_images: Count | None = None

    def at(self, global_batch: int) -> float:
        return self.base if self.per_images is None else self.base * global_batch / self.per_images


class Optimizer(Strict):
    """SGD with momentum. `implementation`: torch's own, or FusedSGD of NVIDIA's apex."""

    name: Literal["sgd"]
    implementation: Literal["torch", "apex"] = "torch"
    lr: LearningRate
    momentum: Fraction
    weight_decay: Annotated[float, Field(ge=0)]
    decay_bn_and_bias: bool


class _Schedule(Strict):
    epochs: Count
    warmup_epochs: Annotated[int, Field(ge=0)] = 0


class StepSchedule(_Schedule):
    kind: Literal["step"]
    every_epochs: Count
    gamma: Positive


class MultiStepSchedule(_Schedule):
    kind: Literal["multistep"]
    milestones: tuple[Epoch, ...]
    gamma: Positive


class CosineSchedule(_Schedule):
    kind: Literal["cosine"]
    min_lr: Annotated[float, Field(ge=0)] = 0.0


Schedule = Annotated[StepSchedule | MultiStepSchedule | CosineSchedule, Field(discriminator="kind")]


class Batch(Strict):
    """Images a step: per card, or global and split over the cards. Exactly one is given."""

    per_card: Annotated[int, Field(ge=2)] | None = None
    global_: Annotated[int, Field(ge=2)] | None = Field(default=None, alias="global")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.per_card is None) == (self.global_ is None):
            raise ValueError("give exactly one of per_card and global")
        return self

    def on(self, world: int) -> int:
        """Images per card on `world` cards."""
        if self.per_card is not None:
            return self.per_card
        assert self.global_ is not None
        if self.global_ % world or self.global_ // world < 2:
            raise RecipeError(f"global batch {self.global_} cannot be split over {world} cards")
        return self.global_ // world


class Loss(Strict):
    """Cross entropy. `label_smoothing` s: on-value 1 - s, off-value s / (classes - 1)."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Amp(Strict):
    """Mixed precision on accelerators. `loss_scale`: a number, "dynamic", or none."""

    dtype: Literal["float16", "bfloat16"]
    loss_scale: Positive | Literal["dynamic"] | None


class PrecisionRules(Strict):
    amp: Amp


Metric = Literal[
    "top1", "top5", "throughput", "scaling", "mark_epoch", "mark_loss", "mark_top1", "mark_top5"
]
METRICS: tuple[str, ...] = get_args(Metric)


class Spread(Strict):
    """One standard deviation between repeats, in the metric's unit, and where it was measured."""

    value: Annotated[float, Field(ge=0)]
    source: str


class Claim(Strict):
    """One published number and the conditions it was published under.

    Units: top1, top5, mark_top1, mark_top5 in percent; throughput in images/s of all cards;
    scaling and the tolerance of throughput as a fraction; mark_epoch in epochs.
    A condition left out was not published: any value of it is accepted, and the report says so.
    """

    metric: Metric
    value: float
    direction: Literal["at_least", "at_most", "equal"]
    tolerance: Annotated[float, Field(ge=0)]
    tolerance_source: str = "ours"
    prior_spread: Spread | None = None
    label: str = "published"
    epochs: Count | None = None
    precision: Precision | None = None
    cards: Count | None = None
    global_batch: Count | None = None
    eval_protocol: str | None = None
    scored_images: Count | None = Field(
        default=None, description="how many the source scored; None: all, or not published"
    )
    mark_s: Positive | None = None
    hardware: str
    source: str
    note: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.metric.startswith("mark_") and self.mark_s is None:
            raise ValueError(f"{self.metric} needs mark_s")
        if self.metric in ("top1", "top5") and (self.epochs is None or self.eval_protocol is None):
            raise ValueError(f"{self.metric} needs epochs and eval_protocol")
        if self.metric in ("throughput", "scaling") and self.cards is None:
            raise ValueError(f"{self.metric} needs cards")
        return self


class Conflict(Strict):
    """Two sources that disagree on one fact, and what the recipe does about it."""

    fact: str
    says: dict[str, str]
    chosen: str


class SourceRate(Strict):
    """How the published system works out the images/s that it prints, so that like meets like.

    over `epoch`: images of an epoch / its time from first step to last, the first `skip` epochs
    left out, evaluation not counted; over `step`: images of a step / mean time of a step, the first
    `skip` steps left out. Both include the wait for data.
    """

    over: Literal["epoch", "step"]
    skip: Annotated[int, Field(ge=0)]
    decimals: Annotated[int, Field(ge=0)]
    assumed: bool = Field(default=False, description="warm-up or rounding is not published")
    source: str


class Reference(Strict):
    """Another published result of a related network: shown as theirs, never judged.

    `repeats_claim`: the same network, system and recipe, stated a second time; `final_loss` is its
    training loss at the end.
    """

    network: str
    system: str
    repeats_claim: bool = False
    top1: float | None = None
    top5: float | None = None
    final_loss: float | None = None
    images_per_s: dict[int, float] = {}
    recipe: str | None = None


class Recipe(Strict):
    """One network on one data set, complete."""

    name: str = Field(pattern=r"^[A-Za-z0-9]+$")
    paper: str
    sources: dict[str, str]
    model: Network
    data: Data
    optimizer: Optimizer
    schedule: Schedule
    batch: Batch
    loss: Loss
    precision: PrecisionRules
    marks_s: tuple[Positive, ...] = ()
    source_rate: SourceRate | None = None
    runs: tuple[str, ...]
    claims: tuple[Claim, ...]
    conflicts: tuple[Conflict, ...] = ()
    references: tuple[Reference, ...] = ()

    @model_validator(mode="after")
    def _claims_fit(self) -> Self:
        protocols = [p.name for p in self.data.eval]
        for claim in self.claims:
            if claim.eval_protocol is not None and claim.eval_protocol not in protocols:
                raise ValueError(
                    f"a claim names eval_protocol {claim.eval_protocol!r}; declared: {protocols}"
                )
            if claim.source not in self.sources:
                raise ValueError(f"a claim names source {claim.source!r}, which `sources` lacks")
        return self
