"""The OpenAPI document is true: whatever is made of it is answered as it says."""

import pytest

from tests.serve.server.fuzz import fuzz

pytest.importorskip("schemathesis", reason="install the package schemathesis")


@pytest.mark.slow
def test_no_request_of_the_document_is_a_server_error_or_answered_otherwise(server):
    counts, well = fuzz(server, requests=600)
    assert well and counts.total() >= 600
    assert not [status for status in counts if status >= 500], counts
