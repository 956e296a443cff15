"""Weights on disk: safetensors files that also say which network they belong to, and those of other code."""

from __future__ import annotations

import json
import tarfile
import zipfile
from os import PathLike
from pathlib import Path
from textwrap import shorten
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .errors import InputError
from .foreign import translate

__all__ = ["load_network", "read_tensors", "save_network", "shipped_weights"]

#: Where the weights that come with the package lie.
FOLDER = Path(__file__).parent / "weights"

Network = TypeVar("Network", bound=nn.Module)


def shipped_weights() -> list[str]:
    """Names of the weights that come with the package.

    >>> "mvsnet" in shipped_weights()
    True
    """
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def save_network(network: nn.Module, path: str | PathLike[str], **notes: str) -> None:
    """Write a network's weights, with its class, its settings and any notes, into one safetensors file.

    Args:
        network: a network with a ``config`` of keyword arguments that rebuild it.
        path: the file to write.
        notes: what else shall stand in the file's header.

    Raises:
        InputError: if the file cannot be written; one that was there stays.

    Source: ours.

    >>> from tempfile import TemporaryDirectory
    >>> from mvsnet_edu import MVSNet
    >>> with TemporaryDirectory() as folder:
    ...     save_network(MVSNet(norm="instance"), f"{folder}/mine.safetensors", steps="0")
    ...     load_network(MVSNet, f"{folder}/mine.safetensors").config["norm"]
    'instance'
    """
    from safetensors.torch import save

    path = Path(path)
    temporary = path.with_name(f".{path.name}.new")
    header = {"class": type(network).__name__, "config": json.dumps(network.config), **notes}
    header["enlarge"] = str(getattr(network, "enlarge", 1))  # no matter of the network, but of its use
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    content = save(weights, header)  # save_file has temporary files of its own, which a killed process leaves
    try:
        temporary.write_bytes(content)
        temporary.replace(path)  # in one step: whoever reads the file meanwhile finds the old one, whole
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written: {error.strerror}.") from None


def load_network(
    kind: type[Network] | tuple[type[Network], ...], name_or_path: str | PathLike[str]
) -> Network:
    """Rebuild a network from a file written by :func:`save_network`, or by other code that we know.

    The latter, files of ``torch.save``, are listed in :mod:`mvsnet_edu.foreign`; no code in them is run.

    Args:
        kind: the class of the network, or several, of which it may be any.
        name_or_path: a name out of :func:`shipped_weights`, or a path to a file.

    Returns:
        the network, on the CPU, in evaluation mode.

    Raises:
        InputError: if there is no such file, it is no file of weights, or it holds another network.

    Source: ours.

    >>> from mvsnet_edu import MVSNet
    >>> load_network(MVSNet, "mvsnet").training
    False
    """
    path = _locate(name_or_path)
    header, weights = _read(path)
    kinds = {each.__name__: each for each in (kind if isinstance(kind, tuple) else (kind,))}
    found = header.get("class", "an unknown network")
    if found not in kinds:
        raise InputError(f"{path}: holds weights of {found}, not {' or '.join(kinds)}")
    return _build(kinds[found], header, weights, path)


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The header and the tensors of a file; what is of other code is translated."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        reason = str(error)[:200]
    try:
        content = read_tensors(path)
    except ValueError:
        raise InputError(f"{path}: no safetensors file ({reason}), nor tensors of torch.save") from None
    kind, config, weights = translate(content, path)
    return {"class": kind, "config": json.dumps(config)}, weights


def read_tensors(path: str | PathLike[str]) -> Any:
    """What ``torch.save`` wrote, if that is tensors and plain values; no code in the file is run.

    Args:
        path: the file.

    Returns:
        its content, on the CPU.

    Raises:
        ValueError: if there is anything else in it, it is damaged, or it unpacks to more than its size.

    Source: ours.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     torch.save({"step": 3}, f"{folder}/a.pt")
    ...     read_tensors(f"{folder}/a.pt")
    {'step': 3}
    """
    path = Path(path)
    try:
        if tarfile.is_tarfile(path):  # of torch 0.1.9, and read as a plain pickle by torch before 2.6
            raise ValueError("is of a format that can hold code")
        if zipfile.is_zipfile(path):  # torch.save does not compress
            with zipfile.ZipFile(path) as file:
                if sum(part.file_size for part in file.infolist()) > path.stat().st_size:
                    raise ValueError("unpacks to more than its size")
        content = torch.load(path, map_location="cpu", weights_only=True)
        _refuse_unstored(content, set())
    except Exception as error:  # whatever a damaged file can do to a parser
        raise ValueError(f"{path} holds no tensors") from error
    return content


def _refuse_unstored(content: Any, seen: set[int]) -> None:
    """A file can name a tensor of any size that repeats one number: computing with it fills the memory."""
    if id(content) in seen:
        return
    seen.add(id(content))
    if isinstance(content, (dict, list, tuple)):
        for part in content.values() if isinstance(content, dict) else content:
            _refuse_unstored(part, seen)
    elif isinstance(content, Tensor):
        if content.numel() * content.element_size() > content.untyped_storage().nbytes():
            raise ValueError("has tensors that are not stored")


def _build(kind: type[Network], header: dict[str, str], weights: dict, path: Path) -> Network:
    try:
        config, enlarge = json.loads(header.get("config", "{}")), int(header.get("enlarge", "1"))
        if enlarge < 1:
            raise ValueError(f"enlarge is {enlarge}")
        with torch.device("meta"):  # a header can ask for layers of any width: first without memory
            kind(**config).load_state_dict(weights, assign=True)
        network = kind(**config)
        network.load_state_dict(weights)
        network.enlarge = enlarge
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise InputError(f"{path}: does not fit {kind.__name__} ({shorten(str(error), 200)})") from None
    return network.eval()


def _locate(name_or_path: str | PathLike[str]) -> Path:
    path = FOLDER / f"{name_or_path}.safetensors"
    path = path if path.is_file() else Path(name_or_path)
    if "\0" in str(path) or not path.is_file():
        names = ", ".join(shipped_weights())
        raise InputError(f"{path}: no such weights file; the names that ship are {names}")
    return path
