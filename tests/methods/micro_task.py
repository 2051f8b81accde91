"""The micro world as a task, with whatever a method puts beside the rows before it trains."""

from typing import Any

from expunge.core.registry import methods
from expunge.engine.method import GradientMethod
from expunge.engine.task import Task
from expunge.testing.methods import taught_subject, world


def prepared(id: str, **options: Any) -> tuple[Task, GradientMethod]:
    """The task of a method after its ``prepare``, and the method with these parameters."""
    params = methods.params(id, options)
    method = GradientMethod.assemble(methods.load(id), params)
    subject, rows = taught_subject(), world()
    task = Task(
        model=subject.model,
        tokenizer=subject.tokenizer,
        encoder=subject.encoder,
        roles={"forget": rows.forget, "retain": rows.retain},
    )
    assert method.prepare is not None
    method.prepare(task, params)
    return task, method
