"""What people read: self-contained pages with inline charts, safe to open anywhere."""

from expunge.report.audit import render_audit
from expunge.report.compare import render_comparison
from expunge.report.demo import render_demo
from expunge.report.stream import render_stream, write_stream

__all__ = ["render_audit", "render_comparison", "render_demo", "render_stream", "write_stream"]
