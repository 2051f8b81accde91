"""Every metric of the registry passes the same suite, on arrival."""

import pytest

from expunge.core import registry
from expunge.testing.measure import check_metric


@pytest.mark.parametrize("metric_id", registry.metrics.ids())
def test_metric_conforms(metric_id):
    check_metric(metric_id)
