"""Everything that can be known to be wrong before weights load, all at once.

Tokenizers are opened, weights are not: of a weight file only the header is read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from expunge.core.errors import ExpungeError, Problems, nearest
from expunge.core.families import GradientParams
from expunge.core.registry import methods
from expunge.data.encode import Encoded, Encoder
from expunge.data.jsonl import read_rows
from expunge.data.retain import choose_retain
from expunge.engine import part_files, rates
from expunge.engine.change import read_manifest
from expunge.engine.combinations import about_edits, about_rewards, refused
from expunge.engine.datasets import wordings_of
from expunge.engine.estimate import estimate
from expunge.engine.exact import base_for
from expunge.engine.exact.asking import problems_of
from expunge.engine.levels import StopAt
from expunge.engine.method import GradientMethod, sieves
from expunge.engine.plan import Plan
from expunge.engine.room import too_large
from expunge.engine.work import work_of
from expunge.engine.wrappers import WRAPPER, Wrapped, modules_of, read_wrappers
from expunge.lm.folder import Folder, inspect_folder
from expunge.lm.load import load_tokenizer
from expunge.requests.rows import Row, check_roles

Rows = str | Path | Sequence[Row]
Answer = TypeVar("Answer")
LONGEST_LIST = 20


@dataclass(slots=True)
class Report:
    """What a check found.

    Attributes:
        problems: Everything that stands in the way, in the order found.
        estimate: ``seconds``, ``memory_bytes``, ``disk_bytes`` the run will need.
        resolved: What ``auto`` and the defaults stand for.
        plan: The resolved request, when nothing stands in the way.
    """

    problems: list[ExpungeError] = field(default_factory=list)
    estimate: dict[str, float] = field(default_factory=dict)
    resolved: dict[str, Any] = field(default_factory=dict)
    plan: Plan | None = None

    def attempt(self, call: Callable[[], Answer]) -> Answer | None:
        """The answer of ``call``, or None with its problems collected."""
        try:
            return call()
        except Problems as several:
            self.problems += several.problems
        except ExpungeError as one:
            self.problems.append(one)
        return None


def check_forget(
    model: str | Path,
    forget: Rows,
    retain: Rows | None = None,
    *,
    neighbour: Rows | None = None,
    holdout: Rows | None = None,
    reference: str | Path | None = None,
    method: str = "npo",
    params: Mapping[str, Any] | None = None,
    wrappers: Sequence[str] = (),
    adapter: str | None = None,
    utility_budget: float | None = None,
    max_minutes: float | None = None,
    stop_at: str = "placebo",
    seed: int = 0,
    out: str | Path | None = None,
    anchor: str | Path | None = None,
    carry: Mapping[str, Any] | None = None,
) -> Report:
    """Validate what `expunge.engine.run.forget` would be asked; same arguments.

    Returns:
        The report; its ``plan`` is None when anything is wrong.
    """
    report = Report()
    given = {"forget": forget, "retain": retain, "neighbour": neighbour, "holdout": holdout}
    rows = read_roles(report, given)
    has_messages = any(row.messages is not None for part in rows.values() for row in part)
    folder = inspect_folder(model, messages=has_messages, adapter=adapter is not None)
    report.problems += folder.problems
    settings = report.attempt(lambda: _params(method, params or {}))
    level = report.attempt(lambda: StopAt.parse(stop_at))
    around, wrong = read_wrappers(wrappers, method if settings is not None else None)
    report.problems += [*wrong, *_wrong_options(adapter, level, reference, out)]
    if reference is not None:
        report.problems += inspect_folder(reference).problems
    if settings is not None and not wrong:
        report.problems += _wrong_together(method, around, settings, adapter, folder)
        if (refuse := getattr(methods.load(method), "refuse", None)) and "forget" in rows:
            report.attempt(lambda: refuse(rows, settings))
        for wrapper, own in modules_of(around):
            if hasattr(wrapper, "refuse"):
                inside = (methods.load(method), settings, own, rows)
                report.attempt(lambda w=wrapper, given=inside: w.refuse(*given))  # type: ignore[misc]
    base, wrong = base_for(method, settings, folder, adapter=adapter, rows=rows)
    report.problems += wrong + problems_of(
        method, settings, folder, base, rows=rows, seed=seed, max_minutes=max_minutes
    )
    compared = None if anchor is None else inspect_folder(anchor)
    report.problems += [] if compared is None else compared.problems
    if settings is not None and settings.lora_targets and adapter:
        report.problems += _missing_targets(folder, settings.lora_targets)
    if report.problems or settings is None or level is None or out is None:
        return report
    kept, origin = choose_retain(rows.get("retain", []), rows.get("holdout", []))
    plan = Plan(
        folder=folder,
        method=methods.card(method).id,
        params=settings,
        rows={**rows, "retain": kept},
        retain_origin=origin,
        reference=Path(reference) if reference else None,
        wrappers=around,
        adapter=adapter,
        utility_budget=utility_budget,
        max_minutes=max_minutes,
        stop_at=level,
        seed=seed,
        out=Path(out),
        base=base,
        anchor=compared,
        carry=carry or {},
    )
    encoded = encode_roles(report, folder, plan.rows)
    if not report.problems:
        report.estimate, report.resolved = _needs(plan, encoded)
        report.problems += too_large(report.estimate, Path(out))
        report.plan = None if report.problems else plan
    return report


def read_roles(report: Report, given: Mapping[str, Rows | None]) -> dict[str, list[Row]]:
    """Read every role that is given and check the roles against one another."""
    rows: dict[str, list[Row]] = {}
    for role, source in given.items():
        if isinstance(source, str | Path):
            found = report.attempt(lambda s=source, r=role: read_rows(s, r))  # type: ignore[misc]
        else:
            found = None if source is None else list(source)
        if found is not None:
            rows[role] = found
    if not report.problems:
        report.problems += check_roles(**rows)
    return rows


def encode_roles(
    report: Report, folder: Folder, rows: Mapping[str, Sequence[Row]]
) -> dict[str, list[Encoded]]:
    """Tokenise every row, so that rows too long or with nothing to learn are found."""
    tokenizer = report.attempt(lambda: load_tokenizer(folder))
    if tokenizer is None:
        return {}
    encoder = Encoder(tokenizer, folder.positions or 1 << 30)
    encoded: dict[str, list[Encoded]] = {}
    for role, part in rows.items():
        encoded[role] = []
        for index, row in enumerate(part):
            for turn in wordings_of(row):
                item = report.attempt(lambda t=turn, i=index: encoder.encode(t, row=i))  # type: ignore[misc]
                if item is not None:
                    encoded[role].append(item)
            if len(report.problems) >= LONGEST_LIST:
                return encoded
    return encoded


def _params(method: str, overrides: Mapping[str, Any]) -> GradientParams:
    card = methods.card(method)
    if card.kind == WRAPPER:
        raise ExpungeError(
            "E-USE-006",
            f"{card.id} is a wrapper, not a method.",
            "a method, and wrappers by --with.",
            f"Use --method npo --with {card.id}.",
        )
    params: GradientParams = methods.params(method, overrides)
    return params


def _wrong_options(
    adapter: str | None,
    stop_at: StopAt | None,
    reference: str | Path | None,
    out: str | Path | None,
) -> list[ExpungeError]:
    problems = []
    if adapter not in (None, "lora"):
        problems.append(
            ExpungeError("E-USE-003", f"--adapter {adapter}.", "lora.", "Use --adapter lora.")
        )
    if stop_at is not None and stop_at.kind == "reference" and reference is None:
        problems.append(
            ExpungeError(
                "E-USE-007",
                "--stop-at reference without a reference model.",
                "--reference DIR, a model retrained without the forget rows.",
                "Give it, or use --stop-at placebo.",
            )
        )
    if out is None:
        problems.append(
            ExpungeError("E-USE-007", "no --out.", "a folder for the result.", "Give --out DIR.")
        )
    elif (problem := occupied(Path(out))) is not None:
        problems.append(problem)
    return problems


def _wrong_together(
    method: str,
    wrappers: Sequence[Wrapped],
    settings: GradientParams,
    adapter: str | None,
    folder: Folder,
) -> list[ExpungeError]:
    module, parts = methods.load(method), part_files.refused(method, folder, adapter)
    is_reinforced = methods.card(method).kind == "reinforcement"
    if not hasattr(module, "forget") and not is_reinforced:  # it trains nothing
        return [*about_edits(adapter), *parts]
    around = modules_of(wrappers)
    needs = GradientMethod.assemble(module, settings, around).needs
    modules = [module, *(wrapper for wrapper, _ in around)]
    problems = sieves(module, modules[1:])
    problems += about_rewards(settings, folder) if is_reinforced else ()
    problems += refused(modules, settings, needs=needs, adapter=adapter, folder=folder)
    return problems + parts


def occupied(out: Path) -> ExpungeError | None:
    """Why ``out`` cannot be written to: a file, or a folder with somebody else's things."""
    if out.is_file():
        return ExpungeError(
            "E-USE-004", f"{out} is a file.", "a folder.", "Name another --out, or delete it."
        )
    if not out.is_dir():
        return None
    here = {entry.name for entry in out.iterdir()} - {".lock"}
    if not here or ".run" in here:
        return None
    try:
        if read_manifest(out) is not None:
            return None
    except ExpungeError as error:
        return error
    return ExpungeError(
        "E-USE-004",
        f"{out} holds other files ({', '.join(sorted(here)[:3])}).",
        "an empty folder, or one this command has written.",
        "Name another --out.",
    )


def _missing_targets(folder: Folder, targets: Sequence[str]) -> list[ExpungeError]:
    names = {name.removesuffix(".weight") for name in folder.tensors}
    linears = {name.rpartition(".")[2] for name in names}
    return [
        ExpungeError(
            "E-MODEL-008",
            f"No module of the model ends in {target!r}.",
            "names of linear modules, such as q_proj or mlp.down_proj.",
            nearest(target, linears),
        )
        for target in targets
        if not any(name == target or name.endswith(f".{target}") for name in names)
    ]


def _passed(plan: Plan) -> int:
    """Rows of one epoch: the forget rows, unless the method passes over those that are kept."""
    passes = methods.card(plan.method).extra.get("passes")
    if methods.card(plan.method).kind == "reinforcement":
        return int(methods.load(plan.method).passes(plan.rows, plan.params, plan.seed))
    if passes != "retain":
        name = {"pairs": "alternates", "repeats": "repeats"}.get(str(passes), "")
        each = getattr(plan.params, name, 1)
        return len(plan.rows["forget"]) * each
    kept = len(plan.rows["retain"]) + len(plan.rows.get("neighbour", ()))
    matched = getattr(plan.params, "steps", "full") == "matched"
    return kept + len(plan.rows["forget"]) * matched


def _needs(
    plan: Plan, encoded: Mapping[str, Sequence[Encoded]]
) -> tuple[dict[str, float], dict[str, Any]]:
    params, folder = plan.params, plan.folder
    per_epoch = -(-_passed(plan) // (params.batch_size * params.accumulation))
    steps = rates.run_length(params, per_epoch, folder.parameters)
    card = methods.card(plan.method)
    rate = None
    if card.kind != "edit":
        adapter = bool(plan.adapter)
        rate = rates.learning_rate(params, folder.parameters, adapter=adapter, card=card.extra)
    resolved = {
        "method": plan.method,
        "lr": rate,
        "steps": steps,
        "warmup": rates.warmup_steps(params, per_epoch, steps),
        "rows": {role: len(part) for role, part in plan.rows.items()},
        "retain_rows": plan.retain_origin,
        "parameters": folder.parameters,
    }
    return estimate(work_of(plan, encoded, steps)), resolved
