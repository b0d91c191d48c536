"""The schema of `recipes/<model>/recipe.yaml`, and its reading. Torch-free.

A recipe file says everything about one network's published training; its `rehearsal` section says
only in what the run on the embedded digits differs. `load_recipe` returns one complete `Recipe`
per data set. A typo is refused with file, line and the nearest valid key.
"""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from proofrun.errors import RecipeError

Precision = Literal["FP32", "TF32", "AMP", "BF16", "FP16"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    """Base of every section: unknown keys are errors, values keep their type and never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class Network(Strict):
    graph: str
    options: dict[str, bool | int | float | str] = {}
    parameters: Count = Field(description="at 1000 classes")


class ColorJitter(Strict):
    """Factors drawn from [1 - x, 1 + x]; hue is a fraction of a turn, drawn from [-x, x]."""

    brightness: Fraction
    contrast: Fraction
    saturation: Fraction
    hue: Annotated[float, Field(ge=0, le=0.5)]


class TrainInput(Strict):
    image_size: Count
    crop_area: tuple[Fraction, Fraction]
    crop_ratio: tuple[Positive, Positive]
    interpolation: Literal["bilinear"]
    antialias: bool
    flip_probability: Fraction
    color_jitter: ColorJitter | None = None


class EvalProtocol(Strict):
    """How a validation image becomes a network input. `squash` ignores the aspect ratio."""

    name: str
    resize: Literal["shorter_side", "squash"]
    resize_to: Count
    crop: Count
    interpolation: Literal["bilinear"]
    antialias: bool

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
    name: Literal["sgd"]
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
    milestones: tuple[Count, ...]
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
    """Mixed precision on accelerators. `loss_scale`: a number, "dynamic", or none (bf16)."""

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


class Reference(Strict):
    """Another published result of a related network: shown as theirs, never judged."""

    network: str
    system: str
    top1: float | None = None
    top5: float | None = None
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


class _Yaml12Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 as a number (YAML 1.2) and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                raise yaml.constructor.ConstructorError(
                    problem=f"line {line}: {key.value!r} is given twice"
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Yaml12Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def parse_yaml(text: str) -> Any:
    """YAML text as plain Python values; raises yaml.YAMLError."""
    return yaml.load(text, _Yaml12Loader)  # noqa: S506 - a SafeLoader


def load_recipe(path: Path) -> dict[str, Recipe]:
    """Read `recipe.yaml`: {data name: complete recipe}; the published one comes first.

    Raises RecipeError with file, line, the offending key and the nearest valid one.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({error}); every recipe needs one") from None
    try:
        raw = parse_yaml(text)
        lines = _key_lines(yaml.compose(text, yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}:1: a recipe is a mapping of sections, like `name: …`")
    rehearsal = raw.pop("rehearsal", None)
    published = _validate(raw, path, lines, ())
    recipes = {published.data.name: published}
    if rehearsal is not None:
        if not isinstance(rehearsal, dict):
            raise RecipeError(f"{path}:{lines[('rehearsal',)]}: rehearsal must be a mapping")
        merged = deep_merge(raw, rehearsal)
        small = _validate(merged, path, lines, ("rehearsal",))
        if small.data.name in recipes:
            raise RecipeError(f"{path}: the rehearsal needs a data name of its own")
        recipes[small.data.name] = small
    return recipes


def deep_merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """`base` with `change` laid over it: mappings are merged, anything else is replaced."""
    merged = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        # A schedule of another kind shares no keys with the one it replaces.
        replaced = both and "kind" in value and value["kind"] != merged[key].get("kind")
        merged[key] = deep_merge(merged[key], value) if both and not replaced else value
    return merged


def validate_recipe(raw: dict[str, Any]) -> Recipe:
    """A recipe from plain values; tuples may come as lists. Raises pydantic.ValidationError."""
    return Recipe.model_validate_json(_json(raw))


def _json(raw: dict[str, Any]) -> str:
    # JSON input: strict mode then takes a list for a tuple, and still no string for a number.
    return json.dumps(raw)


Loc = tuple[str | int, ...]


def _validate(raw: dict[str, Any], path: Path, lines: dict[Loc, int], prefix: Loc) -> Recipe:
    try:
        return validate_recipe(raw)
    except TypeError as error:  # a date or another value that YAML knows and JSON does not
        raise RecipeError(f"{path}: {error}; put the value in quotes") from None
    except ValidationError as error:
        first = first_error(error)
        where = ".".join(str(part) for part in first["loc"] if part not in _TAGS)
        line = _line_of(lines, prefix, first["loc"])
        raise RecipeError(f"{path}:{line}: {where}: {explain(first)}") from None


def first_error(error: ValidationError) -> Any:
    """The error to show: an unknown key explains the missing one that it was meant to be."""
    errors = error.errors()
    return next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])


def explain(error: Any) -> str:
    """One pydantic error as a phrase that says what to do."""
    loc: Loc = error["loc"]
    if error["type"] == "extra_forbidden":
        valid = _keys_at(loc[:-1])
        near = difflib.get_close_matches(str(loc[-1]), valid, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(valid)}"
        return f"unknown key; {hint}"
    if error["type"] == "missing":
        return "this key is missing"
    given = error.get("input")
    shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool | None) else ""
    return f"{error['msg']}{shown}"


def _keys_at(loc: Loc) -> list[str]:
    """The valid keys of the section at `loc`, by walking the models' own fields."""
    models: list[type[BaseModel]] = [Recipe]
    for part in loc:
        found: list[type[BaseModel]] = []
        for model in models:
            for name, field in model.model_fields.items():
                if part in (name, field.alias):
                    found += _models_in(field.annotation)
        # A part that names no field is a list index or a union tag: stay at the same models.
        models = found or models
    tag = [m for m in models if loc and _kind_of(m) == loc[-1]]
    return sorted({f.alias or name for m in tag or models for name, f in m.model_fields.items()})


def _kind_of(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("kind")
    return get_args(field.annotation)[0] if field else None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _key_lines(node: yaml.Node | None) -> dict[Loc, int]:
    """{key path: line number from 1} of every key and list item in a composed YAML document."""
    found: dict[Loc, int] = {}

    def walk(node: yaml.Node | None, loc: Loc) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                found[(*loc, key.value)] = key.start_mark.line + 1
                walk(value, (*loc, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                found[(*loc, index)] = value.start_mark.line + 1
                walk(value, (*loc, index))

    walk(node, ())
    return found


def _line_of(lines: dict[Loc, int], prefix: Loc, loc: Loc) -> int:
    """The line of `loc`, or of its nearest parent; what a section does not say, its base says."""
    # pydantic puts the tag of a union ("step") into the path; the file has no such key.
    for end in range(len(loc), 0, -1):
        for start in (prefix, ()):
            for candidate in (loc[:end], tuple(p for p in loc[:end] if p not in _TAGS)):
                if (*start, *candidate) in lines:
                    return lines[(*start, *candidate)]
    return lines.get(prefix, 1)


_TAGS = {"step", "multistep", "cosine"}
