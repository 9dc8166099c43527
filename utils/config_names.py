"""Checks of what a config names: head and network exist, and their options fit their own signatures. No other keys."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from functools import partial
from typing import Any

from utils.config_keys import default_of
from utils.config_values import WrongTypeError, conform, describe_type, did_you_mean

INSTALLED = ("torchvision:", "timm:")  # networks whose names an optional package knows
# What every net is built with and a key of its own says; the rest of a net's signature is in `network_options`.
OWN_KEYS = frozenset({"embedding_size", "dropout", "gradient_checkpointing", "in_channels"})


def value_of(values: Mapping[str, Any], name: str) -> Any:
    """What a key is: as it was set, else its default."""
    return values.get(name, default_of(name))


def unknown_name(kind: str, name: str, known: typing.Iterable[str]) -> str:
    """The line about a name that nothing here has, with the likely one and all that there are."""
    names = sorted(known)
    return f"{kind} {name!r} is not among those here.{did_you_mean(name, names)} Have: {', '.join(names)}."


def check_head(values: dict[str, Any], origins: Mapping[str, str], heads: Mapping[str, type]) -> list[str]:
    """Checks the head's name, its options against the head's own signature, and what the head supports."""
    name, options = value_of(values, "head"), value_of(values, "head_options")
    if name not in heads:
        return [f"{origins['head']}: {unknown_name('head', name, heads)}"]
    head, where = heads[name], origins["head_options"]
    clean, problems = _check_options("head", name, options, head, where)
    built: Any = head
    if not problems:
        try:
            built = head(**clean)  # the head knows its own ranges
        except (ValueError, TypeError) as error:
            problems.append(f"{where}: head {name!r} with {clean!r}: {error}")
        else:
            values["head_options"] = clean
    on_cosines = getattr(built, "normalize_embeddings", True) and getattr(built, "normalize_prototypes", True)
    if value_of(values, "interclass_filter") is not None and not on_cosines:
        problems.append(
            f"{origins['interclass_filter']}: interclass_filter = {values['interclass_filter']:g} is a cosine, but "
            f"head {name!r} works on inner products. Set it to None, or choose a head on cosines, as arcface."
        )
    if value_of(values, "margin_warmup_epochs") > 0 and not getattr(head, "supports_margin_warmup", False):
        able = sorted(other for other in heads if getattr(heads[other], "supports_margin_warmup", False))
        problems.append(
            f"{origins['margin_warmup_epochs']}: margin_warmup_epochs = {values['margin_warmup_epochs']:g}, but head "
            f"{name!r} has no margin that can grow. Set it to 0, or choose one of: {', '.join(able) or 'none'}."
        )
    return problems


def check_network(values: dict[str, Any], origins: Mapping[str, str], backbones: Mapping[str, Any]) -> list[str]:
    """Checks the network's name, and its options' names and types; ranges are known to the net, which preflight builds.

    Nets of an installed package have signatures that nothing here knows: their options are theirs to refuse.
    """
    name, options = value_of(values, "network"), value_of(values, "network_options")
    if name.startswith(INSTALLED):
        taken = sorted(options.keys() & OWN_KEYS)
        return [_own_key(origins["network_options"], option) for option in taken]
    if name not in backbones:
        names = [*backbones, *(f"{prefix}NAME" for prefix in INSTALLED)]
        return [f"{origins['network']}: {unknown_name('network', name, names)}"]
    clean, problems = _check_options("network", name, options, backbones[name], origins["network_options"])
    if not problems and "network_options" in values:
        values["network_options"] = clean
    return problems


def _own_key(where: str, option: str) -> str:
    return f"{where}: network_options.{option}: {option} is a key of its own, write {option}=VALUE."


def _check_options(
    kind: str, name: str, options: Mapping[str, Any], builder: Any, where: str
) -> tuple[dict[str, Any], list[str]]:
    """Options of a head or network (`kind`) as the types that its signature says, and a line for each wrong one."""
    own_keys = OWN_KEYS if kind == "network" else frozenset()
    parameters = {
        parameter.name: parameter
        for parameter in inspect.signature(builder).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.name not in own_keys
    }
    hints = _argument_hints(builder)
    listed = ", ".join(p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters.values())
    clean: dict[str, Any] = {}
    problems = []
    for option, value in options.items():
        if option in own_keys:
            problems.append(_own_key(where, option))
            continue
        if option not in parameters:
            near = did_you_mean(option, parameters)
            has = f"It has: {listed or 'none'}."
            without = "" if near or kind == "head" else " Without any: network_options={}."
            problems.append(f"{where}: {kind} {name!r} has no option {option!r}.{near} {has}{without}")
            continue
        try:
            clean[option] = conform(value, hints.get(option, Any))
        except WrongTypeError:
            asked = describe_type(hints[option])
            problems.append(f"{where}: {kind}_options.{option} = {value!r}, but {kind} {name!r} takes {asked}.")
    missing = [p.name for p in parameters.values() if p.default is p.empty and p.name not in options]
    if missing:
        problems.append(f"{where}: {kind} {name!r} also needs {', '.join(missing)}. It has: {listed}.")
    return clean, problems


def _argument_hints(builder: Any) -> dict[str, Any]:
    """Returns the types of a builder's arguments; none where its annotations cannot be resolved, so nothing is checked.

    Args:
        builder: a class, a function, or a `functools.partial` of either.
    """
    called = builder.func if isinstance(builder, partial) else builder
    try:
        return typing.get_type_hints(inspect.getattr_static(called, "__init__") if inspect.isclass(called) else called)
    except (NameError, TypeError):
        return {}
