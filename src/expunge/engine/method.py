"""A gradient method as its seven slots, read from its module."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, cast

from expunge.core.params import GradientParams
from expunge.engine.mean import Mean
from expunge.engine.slots import combine, mask, retain, sample, select, stop
from expunge.engine.step import Step

Term = Callable[[Step, Any], Mean | None]


@dataclass(frozen=True, slots=True)
class GradientMethod:
    """The slots of one method with its resolved parameters."""

    id: str
    needs: frozenset[str]
    params: GradientParams
    select: Callable[..., select.Selection]
    forget: Term
    retain: Term
    combine: Callable[..., Sequence[Any]] | None
    mask: Callable[..., mask.Mask]
    sample: Callable[..., sample.Sampler]
    stop: Callable[..., bool]
    prepare: Callable[..., None] | None
    on_epoch: Callable[..., None] | None
    finish: Callable[..., None] | None

    @classmethod
    def assemble(cls, module: ModuleType, params: GradientParams) -> "GradientMethod":
        """Take what the module defines; fill the rest with the shared defaults.

        A slot is a function of the module, or the name of a shared one.
        """

        def slot(name: str, shared: Mapping[str, Any], default: Any) -> Any:
            found = getattr(module, name, default)
            return shared[found] if isinstance(found, str) else found

        needs = frozenset(module.CARD["needs"])
        own_retain = hasattr(module, "retain")
        if not own_retain:
            needs = (needs - {"retain"}) | retain.NEEDS[params.retain_term]
        return cls(
            id=module.CARD["id"],
            needs=needs,
            params=params,
            select=slot("select", select.SHARED, select.everything),
            forget=cast(Term, module.forget),
            retain=slot("retain", retain.SHARED, retain.by_term),
            combine=slot("combine", combine.SHARED, None),
            mask=slot("mask", mask.SHARED, mask.all_trainable),
            sample=slot("sample", sample.SHARED, sample.one_to_one),
            stop=slot("stop", stop.SHARED, stop.never),
            prepare=getattr(module, "prepare", None),
            on_epoch=getattr(module, "on_epoch", None),
            finish=getattr(module, "finish", None),
        )

    @property
    def views(self) -> list[str]:
        """Names of the views a step must have."""
        return sorted(need for need in self.needs if not need.startswith("anchor"))
