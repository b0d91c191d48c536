"""The recipe schema: what it refuses and where it points; the published facts it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from proofrun.errors import OverrideError, RecipeError
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


def test_missing_recipe():
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(ROOT / "recipes" / "none" / "recipe.yaml")


def test_rehearsal_differs_only_where_design_allows():
    """Crop area, flip, milder jitter, sizes, schedule and rate: nothing else of the pipeline."""
    for path in RECIPES:
        published, rehearsal = load_recipe(path).values()
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
        recipe = next(iter(load_recipe(path).values()))
        assert recipe.conflicts
        for conflict in recipe.conflicts:
            assert len(conflict.says) >= 2 and set(conflict.says) <= set(recipe.sources)


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
