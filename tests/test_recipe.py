"""The recipe schema: what it refuses and where it points; the published facts it holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proofrun.errors import OverrideError, RecipeError
from proofrun.recipe import PaddedPlace
from proofrun.recipe_yaml import load_recipe
from proofrun.runs import apply_overrides

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*/recipe.yaml"))
GOOGLENET = ROOT / "recipes" / "googlenet" / "recipe.yaml"


def changed(tmp_path: Path, before: str, after: str) -> tuple[Path, int]:
    """A copy of GoogLeNet's recipe with one text replaced; its path and the line of the change."""
    text = GOOGLENET.read_text()
    assert before in text
    path = tmp_path / "recipe.yaml"
    path.write_text(text.replace(before, after, 1))
    return path, text[: text.index(before)].count("\n") + 1


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("weight_decay: 1", "weigth_decay: 1", "did you mean 'weight_decay'"),
        ("gamma: 0.3", "gama: 0.3", "did you mean 'gamma'"),
        ("crop_ratio: [", "crop_ration: [", "did you mean 'crop_ratio'"),
        ("crop_area: [0.5", "crop_are: [0.5", "did you mean 'crop_area'"),
        ("momentum: 0.9", "momentum: fast", "valid number"),
        ("classes: 1000", "classes: 1000.5", "valid integer"),
        ("label_smoothing: 0.1", "label_smoothing: 1.5", "less than 1"),
        ("kind: multistep", "kind: multstep", "multistep"),
        ("epochs: 300 #", "#", "missing"),
        ("rehearsal:\n", "rehersal:\n", "did you mean 'rehearsal'"),
        ("variants:\n", "variant:\n", "did you mean 'variants'"),
        ("        crop_padding: 4", "        crop_pading: 4", "did you mean 'crop_padding'"),
        ("milestones: [37.5", "milestones: [soon", "schedule.milestones.0: Input should be a va"),
        ("mean: [0.4914", "mean: [x", "data.normalize.mean.0: Input should be a valid number"),
        ("      name: Cifar10", "      name: Digits", "data.name 'Digits' is taken above"),
    ],
)
def test_a_wrong_key_or_type_is_named_with_its_line(tmp_path, before, after, says):
    path, line = changed(tmp_path, before, after)
    with pytest.raises(RecipeError) as error:
        load_recipe(path)
    message = str(error.value)
    assert says in message
    pointed = int(message.split(f"{path}:")[1].split(":")[0])
    # a key that is missing is reported at its section, above where it should stand
    assert pointed == line or (says in ("missing", "multistep") and line - 3 <= pointed <= line)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "mapping"),
        ("- a\n- b\n", "mapping"),
        ("name: [", "not YAML"),
        ("name: a\nname: b\n", "given twice"),
        ("name: !!python/object:os.system x\n", "not YAML"),
        ("rehearsal: 3\nname: X\n", "missing"),
    ],
)
def test_what_is_no_recipe_is_refused_in_one_line(tmp_path, text, says):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=says) as error:
        load_recipe(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ("rehearsal: 3\n", "rehearsal: 3 is no mapping"),
        ("variants: [3]\n", "variants.0: 3 is no mapping"),
        ("variants:\n  - rehearsal: {}\n", "unknown key"),
    ],
)
def test_a_section_that_is_none_is_named_with_its_line(tmp_path, section, says):
    text = GOOGLENET.read_text().split("\n# The same road")[0]
    path = tmp_path / "recipe.yaml"
    path.write_text(text + section)
    line = text.count("\n") + section.count("\n")
    with pytest.raises(RecipeError, match=f"recipe.yaml:{line}: .*{says}"):
        load_recipe(path)


@pytest.mark.parametrize(
    "crop",
    [
        "crop_area: null",
        "crop_padding: 4",
        "{crop_area: null, crop_ratio: null}",
        "{crop_ratio: null, crop_padding: 4}",
    ],
)
def test_a_crop_is_of_one_kind(crop):
    pairs = [
        f"data.train.{pair.strip()}".replace(": ", "=") for pair in crop.strip("{}").split(",")
    ]
    with pytest.raises(OverrideError, match="give crop_area and crop_ratio, or else crop_padding"):
        apply_overrides(load_recipe(GOOGLENET)["ImageNet"], pairs)


def test_missing_recipe():
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(ROOT / "recipes" / "none" / "recipe.yaml")


def test_rehearsal_differs_only_where_design_allows():
    """Crop area, flip, milder jitter, sizes, schedule and rate: nothing else of the pipeline."""
    for path in RECIPES:
        published, rehearsal, *_ = load_recipe(path).values()
        assert rehearsal.model == published.model
        assert rehearsal.loss == published.loss
        assert rehearsal.precision == published.precision
        assert rehearsal.data.normalize == published.data.normalize
        keep = {"crop_ratio", "interpolation", "antialias"}
        small, large = rehearsal.data.train.model_dump(), published.data.train.model_dump()
        assert {k: small[k] for k in keep} == {k: large[k] for k in keep}
        assert (small["color_jitter"] is None) == (large["color_jitter"] is None)
        rules = [(p.resize, p.antialias) for p in rehearsal.data.eval]
        assert rules == [(p.resize, p.antialias) for p in published.data.eval]
        changed = rehearsal.optimizer.model_copy(update={"lr": published.optimizer.lr})
        assert changed == published.optimizer
        assert all(claim.label == "rehearsal (ours)" for claim in rehearsal.claims)


def test_published_facts_googlenet():
    recipe = load_recipe(GOOGLENET)["ImageNet"]
    assert recipe.model.options == {
        "pooling": "valid", "classifier_bias": False, "dropout": 0.2, "bn_eps": 1e-5,
    }  # fmt: skip
    assert recipe.data.train.crop_area == (0.08, 1.0)
    jitter = recipe.data.train.color_jitter
    assert jitter is not None
    assert (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) == (
        0.4, 0.4, 0.4, 0.1,
    )  # fmt: skip
    assert recipe.data.eval[0].resize == "squash"
    assert recipe.optimizer.lr.at(256) == recipe.optimizer.lr.at(2048) == 0.1
    assert not recipe.optimizer.decay_bn_and_bias
    assert recipe.batch.on(8) * 8 == 2048
    assert recipe.loss.label_smoothing == 0.1
    assert recipe.precision.amp.loss_scale == 1024
    claims = {(c.metric, c.cards): c.value for c in recipe.claims}
    assert claims == {
        ("top1", None): 71.86,
        ("top5", None): 90.70,
        ("throughput", 1): 1600,
        ("throughput", 8): 13000,
        ("mark_epoch", 8): 36,
        ("mark_loss", 8): 2.0,
        ("mark_top1", 8): 58.0,
        ("mark_top5", 8): 82.0,
    }


def test_published_facts_googlenet_on_cifar10():
    published, _, recipe = load_recipe(GOOGLENET).values()
    assert recipe.model == published.model
    assert (recipe.data.name, recipe.data.classes) == ("Cifar10", 10)
    assert (recipe.data.train_images, recipe.data.val_images) == (50_000, 10_000)
    train = recipe.data.train
    assert train.crop == PaddedPlace(4) and train.image_size == 224
    assert (train.flip_probability, train.color_jitter) == (0.5, None)
    (protocol,) = recipe.data.eval
    assert (protocol.resize, protocol.resize_to, protocol.crop) == ("squash", 224, 224)
    assert recipe.data.normalize.mean == (0.4914, 0.4822, 0.4465)
    assert recipe.data.normalize.std == (0.2023, 0.1994, 0.2010)
    assert recipe.optimizer.weight_decay == 5e-4 and recipe.optimizer.momentum == 0.9
    assert recipe.optimizer.lr.at(128) == recipe.optimizer.lr.at(1024) == 0.1
    assert recipe.batch.on(1) == recipe.batch.on(8) == 128
    assert recipe.loss.label_smoothing == 0
    assert recipe.schedule.epochs == 125
    claims = {(c.metric, c.cards, c.global_batch, c.epochs): c.value for c in recipe.claims}
    assert claims == {("top1", 1, 128, 125): 93.4, ("top1", 8, 1024, 125): 92.17}


def test_recipes_and_hashes_without_a_padding_are_what_they_were():
    """The key came later: nothing that a run is compared by may have it where there is none."""
    for path in RECIPES:
        for recipe in load_recipe(path).values():
            dumped = recipe.data.train.model_dump(mode="json")
            assert ("crop_padding" in dumped) == (recipe.data.name == "Cifar10")
            assert (
                type(recipe.data.train).model_validate_json(json.dumps(dumped)) == recipe.data.train
            )


def test_published_facts_inceptionv2():
    recipe = load_recipe(ROOT / "recipes" / "inceptionv2" / "recipe.yaml")["ImageNet"]
    assert recipe.model.parameters == 11_295_240
    assert [recipe.optimizer.lr.at(batch) for batch in (64, 256, 512)] == [0.0025, 0.01, 0.02]
    assert recipe.batch.on(1) == recipe.batch.on(8) == 64
    assert recipe.optimizer.decay_bn_and_bias
    assert recipe.precision.amp.loss_scale == "dynamic"
    assert recipe.data.eval[0].resize == "shorter_side"
    (claim,) = recipe.claims
    assert (claim.value, claim.epochs, claim.global_batch) == (72.32, 100, 512)


def test_every_conflict_names_at_least_two_sources():
    for path in RECIPES:
        published, _, *variants = load_recipe(path).values()
        assert published.conflicts
        for conflict in (c for recipe in (published, *variants) for c in recipe.conflicts):
            assert len(conflict.says) >= 2 and set(conflict.says) <= set(published.sources)


def test_overrides_are_validated_and_recorded():
    recipe = load_recipe(GOOGLENET)["Digits"]
    changed, applied = apply_overrides(
        recipe, ["optimizer.lr.base=1e-2", "batch.per_card=32", "data.train.color_jitter=null"]
    )
    assert changed.optimizer.lr.base == 0.01
    assert changed.batch.per_card == 32
    assert changed.data.train.color_jitter is None
    assert applied["optimizer.lr.base"] == 0.01
    assert recipe.batch.per_card == 64


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        ("optimizer.lr.bas=1", "did you mean 'base'"),
        ("batch.per_card=many", "integer"),
        ("batch.per_card", "--set optimizer.lr.base=0.02"),
        ("batch.per_card=[", "no YAML"),
        ("optimizer=3", "optimizer"),
    ],
)
def test_bad_overrides(pair, says):
    with pytest.raises(OverrideError, match=says.replace("[", r"\[")):
        apply_overrides(load_recipe(GOOGLENET)["Digits"], [pair])
