"""Store faults, as many as CI has time for (`campaigns/store_faults.py`)."""

import pytest
from campaigns import Size
from campaigns.store_faults import run

pytest_plugins = ["weed"]


@pytest.mark.campaign
def test_whatever_a_store_does_an_object_is_what_was_sent_or_its_client_was_told():
    figures = run(Size.CI, 1)
    figures.save_if_wanted()
    assert figures.counts["faults"] > 200
    assert figures.counts["completed"] > 200
