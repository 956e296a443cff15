"""What a training run consists of, read from a TOML file in which nothing is misspelt or impossible."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from os import PathLike
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import InputError
from .layers import Norm

__all__ = ["Recipe", "read_recipe", "shipped_recipes"]

#: Where the recipes that come with the package lie.
FOLDER = Path(__file__).parent / "recipes"

Table = TypeVar("Table")


@dataclass(frozen=True)
class NetworkTable:
    """[network]: see :class:`mvsnet_edu.MVSNet` and :class:`mvsnet_edu.RMVSNet`, which does not refine."""

    kind: Literal["mvsnet", "rmvsnet"] = "mvsnet"
    refine: bool = True
    norm: Norm = "group"
    features: Literal["paper", "unet"] = "paper"

    def __post_init__(self) -> None:
        if self.kind == "rmvsnet" and self.refine:
            raise ValueError('refine must be false for kind = "rmvsnet"')


@dataclass(frozen=True)
class DataTable:
    """[data]: what to learn from.

    ``root`` is the folder of DTU or BlendedMVS, or a folder of scene folders, and ``held_out`` one of other
    scene folders, to validate on. ``uses``, ``slots`` and ``camera_error`` are those of
    :class:`mvsnet_edu.data.synthetic.SyntheticScenes`. ``workers`` processes draw or read samples for each
    training process; by default as many as there are cores to spare.
    """

    kind: Literal["generated", "dtu", "blendedmvs", "scenes"] = "generated"
    root: str | None = None
    held_out: str | None = None
    uses: int = 10
    slots: int = 64
    camera_error: float = 0.0
    workers: int | None = None

    def __post_init__(self) -> None:
        _at_least(1, uses=self.uses, slots=self.slots)
        _at_least(0, camera_error=self.camera_error, workers=self.workers or 0)
        _at_most(1_000_000, slots=self.slots)
        _at_most(1_000, workers=self.workers or 0)
        for name, kinds in (("root", ("dtu", "blendedmvs", "scenes")), ("held_out", ("scenes",))):
            if (vars(self)[name] is not None) != (self.kind in kinds):
                problem = "is missing" if self.kind in kinds else "has no meaning"
                raise ValueError(f'{name} {problem} for kind = "{self.kind}"')


@dataclass(frozen=True)
class LossTable:
    """[loss]: mvsnet_loss; ``clamp`` is the largest error of a pixel, in intervals (0: none).

    R-MVSNet learns from mvsnet_classification_loss, which has no settings.
    """

    clamp: float = 0.0

    def __post_init__(self) -> None:
        _at_least(0, clamp=self.clamp)


@dataclass(frozen=True)
class OptimizerTable:
    """[optimizer]: ``clip`` limits the gradient's norm, ``ema`` averages the weights (0: neither)."""

    kind: Literal["adamw", "rmsprop"] = "adamw"
    weight_decay: float = 0.01
    clip: float = 2.0
    ema: float = 0.999

    def __post_init__(self) -> None:
        _at_least(0, weight_decay=self.weight_decay, clip=self.clip, ema=self.ema)
        if self.ema >= 1:
            raise ValueError(f"ema must be below 1, not {self.ema}")


@dataclass(frozen=True)
class StageTable:
    """[[stage]]: steps with one kind of batch and one course of the learning rate.

    ``batch`` counts samples of one process; ``accumulate`` batches make a step; ``views`` lists the numbers
    of views that a batch may have, repeated as often as they are wanted. Images are drawn at ``size`` (width,
    height), or resized to it; without it, those of a data set stay as they are. ``enlarge`` lists how many
    times as wide and as high a step may make them after that, before the network sees them. ``train`` can be
    the "initial" depth, which leaves the refinement as it is, or the "refinement", which leaves all else: a
    step then costs little more than a forward pass, so that it can have larger images.
    """

    steps: int
    rate: float
    schedule: Literal["cosine", "exponential"] = "cosine"
    warm_up: int = 0
    batch: int = 1
    accumulate: int = 1
    views: tuple[int, ...] = (3,)
    size: tuple[int, int] | None = None
    depth_num: int = 48
    enlarge: tuple[int, ...] = (1,)
    train: Literal["all", "initial", "refinement"] = "all"

    def __post_init__(self) -> None:
        _at_least(1, steps=self.steps, batch=self.batch, accumulate=self.accumulate)
        _at_least(1, enlarge=min(self.enlarge, default=0))
        _at_least(0, warm_up=self.warm_up)
        _at_least(2, depth_num=self.depth_num, views=min(self.views, default=0))
        _at_least(32, size=min(self.size or (32,)))
        _at_most(10_000, size=max(self.size or (0,)), depth_num=self.depth_num, batch=self.batch)
        _at_most(1_000, views=max(self.views), enlarge=max(self.enlarge))
        if not self.rate > 0:
            raise ValueError(f"rate must be positive, not {self.rate}")


@dataclass(frozen=True)
class ValidationTable:
    """[validation]: every so many steps (0: at the end only), on so many samples that training never sees."""

    every: int = 500
    samples: int = 20

    def __post_init__(self) -> None:
        _at_least(0, every=self.every)
        _at_most(1_000_000, samples=self.samples)
        _at_least(1, samples=self.samples)


@dataclass(frozen=True)
class ComputeTable:
    """[compute]: precision, and whether activations are computed again instead of kept."""

    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    checkpointing: bool = False


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training run does.

    Args:
        stage: one after the other.
        seed: of the weights and of the samples.
        out: the run's folder; runs/NAME if None.
        start_from: weights to start from, a name or a file; fresh ones if None. An R-MVSNet can start from
            an MVSNet: it takes over the features.
        report: steps between two lines of the log, and between two checkpoints.

    >>> read_recipe("mvsnet").optimizer.kind
    'adamw'
    """

    stage: tuple[StageTable, ...]
    seed: int = 0
    out: str | None = None
    start_from: str | None = None
    report: int = 100
    network: NetworkTable = field(default_factory=NetworkTable)
    data: DataTable = field(default_factory=DataTable)
    loss: LossTable = field(default_factory=LossTable)
    optimizer: OptimizerTable = field(default_factory=OptimizerTable)
    validation: ValidationTable = field(default_factory=ValidationTable)
    compute: ComputeTable = field(default_factory=ComputeTable)

    def __post_init__(self) -> None:
        _at_least(1, report=self.report, stage=len(self.stage))
        _at_least(0, seed=self.seed)
        if self.data.kind == "generated" and any(stage.size is None for stage in self.stage):
            raise ValueError("stage.size is missing: generated scenes have none of their own")
        if self.network.kind == "rmvsnet" and any(max(stage.enlarge) > 1 for stage in self.stage):
            raise ValueError('stage.enlarge must be [1] for network.kind = "rmvsnet"')
        if not self.network.refine and any(stage.train == "refinement" for stage in self.stage):
            raise ValueError('stage.train is "refinement", but network.refine is false')
        if self.network.kind == "rmvsnet" and self.loss.clamp:
            raise ValueError('loss.clamp has no meaning for network.kind = "rmvsnet"')

    @property
    def steps(self) -> int:
        """Of all stages together."""
        return sum(stage.steps for stage in self.stage)

    def changed(self, before: Mapping[str, Any]) -> str | None:
        """The first setting that a stopped run may not go on with.

        What is only watched, or how fast samples come, may change, and stages may be added.

        Args:
            before: the earlier recipe, as ``dataclasses.asdict`` gives it.

        Returns:
            its name, such as "optimizer.clip"; None if the run can go on.
        """
        now = _flat(asdict(self))
        harmless = (
            "out",
            "report",
            "data.root",
            "data.held_out",
            "data.workers",
            "validation.every",
            "validation.samples",
        )
        wanted = {name: value for name, value in _flat(before).items() if name not in harmless}
        return next((name for name, value in wanted.items() if now.get(name) != value), None)


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package.

    >>> shipped_recipes()
    ['mvsnet', 'paper', 'quick', 'rmvsnet']
    """
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read_recipe(name_or_path: str | PathLike[str]) -> Recipe:
    """Read a recipe and check every key and every value.

    Args:
        name_or_path: a name out of :func:`shipped_recipes`, or a TOML file.

    Returns:
        the recipe; its ``out`` is filled in.

    Raises:
        InputError: if there is no such file, or a key or a value in it is wrong.

    Source: ours.

    >>> read_recipe("mvsnet").out
    'runs/mvsnet'
    """
    path = FOLDER / f"{name_or_path}.toml"
    path = path if path.is_file() else Path(name_or_path)
    table = {"out": f"runs/{path.stem}", **_load(path)}
    return _build(Recipe, table, str(path), "")


def _load(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError:
            raise InputError('Recipes need "tomli": pip install "mvsnet_edu[train]".') from None
    if not path.is_file():
        raise InputError(f"{path}: no such recipe; the names that ship are {', '.join(shipped_recipes())}")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES} bytes")
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # broken TOML, or no UTF-8; ten thousand brackets
        raise InputError(f"{path}: no TOML file ({_short(error)})") from None


def _build(kind: type[Table], table: Any, path: str, prefix: str) -> Table:
    """A dataclass from a table of the file; ``prefix`` is where the table stands, such as "optimizer."."""
    if not isinstance(table, dict):
        raise InputError(f"{path}: {prefix.rstrip('.')} must be a table, not {_short(repr(table))}")
    hints = get_type_hints(kind)
    for key in table:
        if key not in hints:
            raise InputError(f"{path}: unknown key {prefix}{_short(key)}; there are {', '.join(hints)}")
    for each in fields(kind):
        if each.name not in table and each.default is each.default_factory:  # neither: both are MISSING
            raise InputError(f"{path}: {prefix}{each.name} is missing")
    values = {key: _value(hints[key], value, path, prefix + key) for key, value in table.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise InputError(f"{path}: {prefix}{_short(error)}") from None


def _value(kind: Any, value: Any, path: str, name: str) -> Any:
    """A value of the file as the type that its field asks for."""
    if is_dataclass(kind):
        return _build(kind, value, path, f"{name}.")
    origin, options = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):  # X | None: a key without a value is left out
        return _value(options[0], value, path, name)
    if origin is Literal:
        if value in options and isinstance(value, str):
            return value
        raise InputError(f"{path}: {name} must be one of {', '.join(options)}, not {_short(repr(value))}")
    if origin is tuple:
        return _tuple(options, value, path, name)
    if type(value) is int and not -LARGEST < value < LARGEST:
        raise InputError(f"{path}: {name} must be smaller, not {_short(value)}")
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind or value in (math.inf, -math.inf):  # not isinstance: True is an int there
        raise InputError(f"{path}: {name} must be {NAMES[kind]}, not {_short(repr(value))}")
    if kind is str and "\0" in value:
        raise InputError(f"{path}: {name} must be a text without a zero byte")
    return value


def _short(said: object) -> str:
    """What a message can hold of a text that somebody else wrote."""
    text = " ".join(str(said).split())
    return text if len(text) <= 200 else f"{text[:100]} ..."


MOST_BYTES = 1 << 14  # of a file; the parser takes hours for a key of a million parts
LARGEST = 1 << 62
NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def _tuple(kinds: tuple, value: Any, path: str, name: str) -> tuple:
    count = None if kinds[-1] is Ellipsis else len(kinds)
    if not isinstance(value, list) or (count and len(value) != count):
        size = f" of {count}" if count else ""
        raise InputError(f"{path}: {name} must be a list{size}, not {_short(repr(value))}")
    return tuple(_value(kinds[0], each, path, f"{name}[{k}]") for k, each in enumerate(value))


def _at_least(low: float, **values: float) -> None:
    for name, value in values.items():
        if not value >= low:
            raise ValueError(f"{name} must be at least {low}, not {value}")


def _at_most(high: float, **values: float) -> None:
    """Against damage: far more than anybody uses would fill the memory."""
    for name, value in values.items():
        if value > high:
            raise ValueError(f"{name} must be at most {high}, not {value}")


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves of nested tables and lists by their dotted names."""
    if not isinstance(tree, (Mapping, list, tuple)):
        return {prefix: tree}
    items = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
    flat: dict[str, Any] = {}
    for key, value in items:
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
