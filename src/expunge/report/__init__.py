"""What people read: self-contained pages with inline charts, safe to open anywhere."""

from expunge.report.audit import render_audit
from expunge.report.compare import render_comparison
from expunge.report.demo import render_demo

__all__ = ["render_audit", "render_comparison", "render_demo"]
