"""The OpenAPI document is true: whatever is made of it is answered as it says."""

import pytest

from tests import needs
from tests.serve.server.fuzz import fuzz

# The document allows every 4XX; these are all that its requests may meet. 405: other methods are
# tried, too; 429: replies that a request left are freed one dispatch later. No 401, 413 or 499: the
# server wants no key, and nothing is too large or given up.
ANSWERED = {200, 400, 404, 405, 429}

needs.package("schemathesis")


@pytest.mark.slow
def test_no_request_of_the_document_is_a_server_error_or_answered_otherwise(server):
    counts, well = fuzz(server, requests=600)
    assert well and counts.total() >= 600
    assert set(counts) <= ANSWERED, counts
