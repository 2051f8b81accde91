"""A gradient method as its seven slots, read from its module and from what is wrapped around it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from types import ModuleType
from typing import Any, cast

from expunge.core.errors import ExpungeError, raise_all
from expunge.core.families import GradientParams
from expunge.engine.mean import Mean
from expunge.engine.slots import combine, mask, retain, sample, select, stop
from expunge.engine.step import Step

Term = Callable[[Step, Any], Mean | None]
Wrapper = tuple[ModuleType, Any]
"""The module of a wrapper and its own resolved parameters."""

REPLACEABLE = ("select", "retain", "combine", "mask", "sample", "stop")
"""Slots that a wrapper may take over; only one may take each."""


@dataclass(frozen=True, slots=True)
class GradientMethod:
    """The slots of one method with its resolved parameters.

    Whoever calls a slot gives it the method's parameters; one that a wrapper has taken over puts
    the wrapper's own in their place.

    Attributes:
        id: Of the method itself.
        needs: What the terms look at, of the method and its wrappers.
        params: The method's parameters.
        added: Wrapper id -> a term that it adds to the forget side, weighted like the forget term.
        beside: Further terms of the method and its wrappers (their ``BESIDE``), by name. They stand
            in the loss as they are, rest with the forget term, and are added to what a combiner
            gives; it may look at their gradients.
        refresh: After each epoch, (task, params): what is looked up anew on the model as it is
            then, in evaluation mode and without gradient, and kept in the task's state.
        redirect: (moves, `Gradients`, state, params) -> moves: what becomes of the way the
            optimiser went, in every step in which gradients were combined. It sees one tensor for
            each trainable parameter, after scaling, momentum, clipping and decay.
        edit: Of a method that trains nothing: (`Finishing`, params), changes the weights itself.
        two_pass: Whether the terms' denominators depend on the model (``"exact": "two-pass"`` in
            the card; weights in them carry no gradient). They then take a pass of their own.
        effort: How many plain steps a step takes on average, for estimates; more than one where a
            combiner or a term runs the model again.
    """

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
    refresh: Callable[..., None] | None = None
    redirect: Callable[..., Sequence[Any]] | None = None
    edit: Callable[..., None] | None = None
    added: Mapping[str, Term] = field(default_factory=dict)
    beside: Mapping[str, Term] = field(default_factory=dict)
    two_pass: bool = False
    effort: float = 1.0

    @classmethod
    def assemble(
        cls, module: ModuleType, params: GradientParams, wrappers: Sequence[Wrapper] = ()
    ) -> "GradientMethod":
        """Take what wrappers define, then what the module does; the rest has shared defaults.

        A slot is a function of a module, or the name of a shared one. ``combines(params)`` of a
        module says whether it needs its combiner with these parameters, ``effort(params)`` how many
        plain steps a step takes, ``needs(params)`` what of the card's needs there is with them.
        The hooks ``prepare``, ``on_epoch``, ``refresh`` and ``finish`` of wrappers run after the
        method's own, in the order given.

        Raises:
            ExpungeError: ``E-USE-006`` when two wrappers claim one slot.
        """
        raise_all(clashes([wrapper for wrapper, _ in wrappers]))

        is_combining = combines(module, params)

        def slot(name: str, shared: Mapping[str, Any], default: Any) -> Any:
            for wrapper, own in wrappers:
                if (found := _defined(wrapper, name)) is not None:
                    return _with(shared[found] if isinstance(found, str) else found, own)
            found = _defined(module, name) if name != "combine" or is_combining else None
            return default if found is None else shared[found] if isinstance(found, str) else found

        def hook(name: str) -> Callable[..., None] | None:
            around = [(_defined(one, name), own) for one, own in wrappers]
            first = _defined(module, name)
            calls = [first, *(found and _with(found, own) for found, own in around)]
            return _in_turn([call for call in calls if call is not None])

        around = [wrapper for wrapper, _ in wrappers]
        terms = {one.CARD["id"]: (_defined(one, "term"), own) for one, own in wrappers}
        return cls(
            id=module.CARD["id"],
            needs=_needs(module, params, around),
            params=params,
            select=slot("select", select.SHARED, select.everything),
            forget=cast(Term, getattr(module, "forget", _trains_nothing)),
            retain=slot("retain", retain.SHARED, retain.by_term),
            combine=slot("combine", combine.SHARED, None),
            mask=slot("mask", mask.SHARED, mask.all_trainable),
            sample=slot("sample", sample.SHARED, sample.one_to_one),
            stop=slot("stop", stop.SHARED, stop.never),
            prepare=hook("prepare"),
            on_epoch=hook("on_epoch"),
            finish=hook("finish"),
            refresh=hook("refresh"),
            redirect=_defined(module, "redirect") if is_combining else None,
            edit=_defined(module, "edit"),
            added={id: _with(term, own) for id, (term, own) in terms.items() if term is not None},
            beside=getattr(module, "BESIDE", {}) | _beside(wrappers),
            two_pass=any(one.CARD.get("exact") == "two-pass" for one in (module, *around)),
            effort=float(getattr(module, "effort", lambda _: 1.0)(params)),
        )

    @property
    def views(self) -> list[str]:
        """Names of the views a step must have."""
        return sorted(need for need in self.needs if not need.startswith("anchor"))

    @property
    def terms(self) -> Mapping[str, Term]:
        """``forget``, ``retain``, what wrappers add to the forget side, what stands beside."""
        return {"forget": self.forget, "retain": self._retained, **self.added, **self.beside}

    def _retained(self, step: Step, params: Any) -> Mean | None:
        """The retain term; none in a step for which the sampler draws no row to be kept."""
        is_missing = "retain" in self.needs and "retain" not in step
        return None if is_missing else self.retain(step, params)

    @property
    def weights(self) -> dict[str, float]:
        """What each term is multiplied by in the loss."""
        params = self.params
        weights = dict.fromkeys(self.terms, params.forget_weight)
        return weights | {"retain": params.retain_weight} | dict.fromkeys(self.beside, 1.0)


def _beside(wrappers: Sequence[Wrapper]) -> dict[str, Term]:
    return {
        name: _with(term, own)
        for module, own in wrappers
        for name, term in getattr(module, "BESIDE", {}).items()
    }


def _trains_nothing(step: Step, params: Any) -> Mean:
    raise LookupError("this method has no forget term: it does not train")


def combines(module: ModuleType, params: GradientParams) -> bool:
    """Whether a method has a combiner and needs it with these parameters."""
    return _defined(module, "combine") is not None and bool(
        getattr(module, "combines", lambda _: True)(params)
    )


def sieves(module: ModuleType, wrappers: Sequence[ModuleType]) -> list[ExpungeError]:
    """Why wrappers cannot go around a method that selects its rows itself: it would be no more."""
    if _defined(module, "select") is None:
        return []
    return [
        ExpungeError(
            "E-USE-006",
            f"--with {wrapper.CARD['id']} around {module.CARD['id']}, and both select rows.",
            "a method that takes all rows, or no wrapper that selects.",
            f"Leave --with {wrapper.CARD['id']} out, or name another --method.",
        )
        for wrapper in wrappers
        if _defined(wrapper, "select") is not None
    ]


def clashes(wrappers: Sequence[ModuleType]) -> list[ExpungeError]:
    """Why wrappers do not go together: one that is given twice, two that claim one slot."""
    ids = [wrapper.CARD["id"] for wrapper in wrappers]
    problems = [
        ExpungeError(
            "E-USE-006",
            f"The wrapper {id} is given {ids.count(id)} times.",
            "each wrapper once.",
            f"Give --with {id} once.",
        )
        for id in dict.fromkeys(ids)
        if ids.count(id) > 1
    ]
    for slot in REPLACEABLE:
        claim = dict.fromkeys(w.CARD["id"] for w in wrappers if _defined(w, slot) is not None)
        if len(claim) > 1:
            problems.append(
                ExpungeError(
                    "E-USE-006",
                    f"The wrappers {' and '.join(claim)} both claim the slot {slot!r}.",
                    "one wrapper for each slot.",
                    f"Leave all but one of them out: {' '.join(f'--with {id}' for id in claim)}.",
                )
            )
    return problems


def _needs(
    module: ModuleType, params: GradientParams, wrappers: Sequence[ModuleType]
) -> frozenset[str]:
    needs = frozenset(getattr(module, "needs", lambda _: module.CARD["needs"])(params))
    if _defined(module, "retain") is None:
        needs -= {"retain"}
        if all(_defined(wrapper, "retain") is None for wrapper in wrappers):
            needs |= retain.NEEDS[params.retain_term]
    return needs.union(*(wrapper.CARD["needs"] for wrapper in wrappers))


def _defined(module: ModuleType, name: str) -> Any:
    """What a module puts into a slot; a module of the same name that it imports is none."""
    found = getattr(module, name, None)
    return found if callable(found) or isinstance(found, str) else None


def _with(function: Callable[..., Any], params: Any) -> Callable[..., Any]:
    """The slot of a wrapper: called with its own parameters in place of the method's."""

    @wraps(function)
    def call(*given: Any) -> Any:
        return function(*given[:-1], params)

    return call


def _in_turn(hooks: Sequence[Callable[..., None]]) -> Callable[..., None] | None:
    if len(hooks) < 2:
        return hooks[0] if hooks else None

    def call(*given: Any) -> None:
        for hook in hooks:
            hook(*given)

    return call
