"""The audit: plan, run, controls, statistics, verdict.

``expunge.audit`` is this room and, called, the public audit (`expunge.api.audit`).
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return import_module("expunge.api").audit(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
