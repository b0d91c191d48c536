"""Reading of recipe files: YAML to `Recipe`, errors with file, line and the nearest valid key."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from proofrun.errors import RecipeError, one_line
from proofrun.recipe import Recipe

Loc = tuple[str | int, ...]

#: Keys of a file for further data protocols: one section, or a list of them, laid over the recipe.
_SECTIONS = ("rehearsal", "variants")


class _Yaml12Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 as a number (YAML 1.2) and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                raise yaml.constructor.ConstructorError(
                    problem=f"line {line}: a key must be a plain word"
                )
            if key.value in seen:
                line = key.start_mark.line + 1
                raise yaml.constructor.ConstructorError(
                    problem=f"line {line}: {key.value!r} is given twice"
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Yaml12Dumper(yaml.SafeDumper):
    """Puts in quotes what `_Yaml12Loader` would read as a number: `1e-2`, as a source wrote it."""


for _class in (_Yaml12Loader, _Yaml12Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


class _NoAliasLoader(_Yaml12Loader):
    """For files that a program wrote: a few aliases of aliases could fill any memory."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            line = self.peek_event().start_mark.line + 1
            raise yaml.constructor.ConstructorError(problem=f"line {line}: an alias")
        return super().compose_node(parent, index)


def parse_yaml(text: str, aliases: bool = True) -> Any:
    """YAML text as plain Python values; raises yaml.YAMLError."""
    try:
        return yaml.load(text, _Yaml12Loader if aliases else _NoAliasLoader)  # noqa: S506
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except ValueError as error:  # 2020-13-45 looks like a date and is none
        raise yaml.YAMLError(one_line(error)) from None


def dump_yaml(plain: Any) -> str:
    """Plain values as YAML that `parse_yaml` reads as the same values."""
    return yaml.dump(plain, Dumper=_Yaml12Dumper, sort_keys=False, allow_unicode=True, width=100)


def yaml_reason(error: yaml.YAMLError) -> str:
    """`line 7: found character '\\t' that cannot start any token`."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or one_line(error)
    return f"line {mark.line + 1}: {problem}" if mark else problem


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
        raise RecipeError(f"{path}: not YAML: {yaml_reason(error)}; correct it there") from None
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}:1: a recipe is a mapping of sections, like `name: …`")
    extra = {key: raw.pop(key) for key in _SECTIONS if key in raw}
    published = _validate(raw, path, lines, ())
    recipes = {published.data.name: published}
    for prefix, change in _sections(extra):
        if not isinstance(change, dict):
            raise RecipeError(
                f"{path}:{lines[prefix]}: {_dotted(prefix)}: {change!r} is no mapping; write only "
                "what is different there, as `data: …` and `runs: …`"
            )
        recipe = _validate(deep_merge(raw, change), path, lines, prefix)
        if recipe.data.name in recipes:
            line = _line_of(lines, prefix, ("data", "name"))
            raise RecipeError(
                f"{path}:{line}: {_dotted(prefix)}: data.name {recipe.data.name!r} is taken above; "
                "give this section a name of its own"
            )
        recipes[recipe.data.name] = recipe
    return recipes


def _sections(extra: dict[str, Any]) -> Iterator[tuple[Loc, Any]]:
    """(where it stands, what it changes) of each further data protocol, laid over the recipe."""
    for key, value in extra.items():
        if isinstance(value, list):
            yield from (((key, index), change) for index, change in enumerate(value))
        else:
            yield (key,), value


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


def _validate(raw: dict[str, Any], path: Path, lines: dict[Loc, int], prefix: Loc) -> Recipe:
    try:
        return validate_recipe(raw)
    except TypeError as error:  # a date or another value that YAML knows and JSON does not
        loc = _unplain(raw, ()) or ()
        line, where = _line_of(lines, prefix, loc), _dotted(loc)
        raise RecipeError(f"{path}:{line}: {where}: {error}; put the value in quotes") from None
    except ValidationError as error:
        first = first_error(error)
        where = _dotted(tuple(part for part in first["loc"] if part not in _TAGS))
        line = _line_of(lines, prefix, first["loc"])
        said = explain(first, also=() if prefix else _SECTIONS)
        raise RecipeError(f"{path}:{line}: {where}: {said}") from None


def _dotted(loc: Loc) -> str:
    return ".".join(map(str, loc))


def _unplain(value: Any, loc: Loc) -> Loc | None:
    """Where the first value or key lies that JSON does not have."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if not isinstance(key, str | int):
                return (*loc, str(key))
            if (found := _unplain(item, (*loc, key))) is not None:
                return found
        return None
    return None if isinstance(value, str | int | float | None) else loc


def first_error(error: ValidationError) -> Any:
    """The error to show: an unknown key explains the missing one that it was meant to be."""
    errors = error.errors()
    return next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])


def explain(error: Any, also: Sequence[str] = ()) -> str:
    """One pydantic error as a phrase that says what to do; `also`: more keys of the top level."""
    loc: Loc = error["loc"]
    if error["type"] == "extra_forbidden":
        valid = sorted([*_keys_at(loc[:-1]), *(also if len(loc) == 1 else ())])
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


_TAGS = {"step", "multistep", "cosine", "float", "int"}
