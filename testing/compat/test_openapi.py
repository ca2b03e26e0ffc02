"""What `/openapi.json` says, held against a live Baton by requests made from it: no server error, and
no answer that the description does not name."""

import collections
import urllib.request

import pytest
import schemathesis
from conftest import start_baton, stop
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
# Requests that fit the description, and requests that do not, of each operation.
EXAMPLES = {GenerationMode.POSITIVE: 12, GenerationMode.NEGATIVE: 12}


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """A Baton of its own: what is created and deleted here is nobody else's."""
    process, ready = start_baton(tmp_path_factory.mktemp("described"))
    yield ready
    stop(process)


def test_every_answer_is_one_that_the_description_names(described):
    description = schemathesis.openapi.from_url(f"{described['base_url']}/openapi.json")
    headers = {"Authorization": f"Bearer {described['api_key']}"}
    faults, seen = [], collections.defaultdict(collections.Counter)

    def check(operation, mode, examples):
        @settings(
            max_examples=examples,
            deadline=None,
            derandomize=True,
            database=None,
            # What fails is told as it is: making it smaller would cost more than it explains.
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def holds(case):
            response = case.call(headers=headers, timeout=60)
            seen[operation.label][response.status_code] += 1
            case.validate_response(response, checks=CHECKS)

        holds()

    for found in description.get_all_operations():
        operation = found.ok()
        for mode, examples in EXAMPLES.items():
            try:
                check(operation, mode, examples)
            except Unsatisfiable:
                # It takes nothing that could be wrong.
                assert mode is GenerationMode.NEGATIVE
            except Exception as fault:
                faults.append(f"{operation.label}, {mode.value}: {fault}")
    for label, counts in seen.items():
        print(label, dict(counts))
    assert not faults, "\n\n".join(faults)
    assert len(seen) > 20, "the description is whole"
    accepted = [label for label, counts in seen.items() if any(s < 300 for s in counts)]
    assert len(accepted) > 8, f"only these were ever accepted: {accepted}"

    with urllib.request.urlopen(
        urllib.request.Request(f"{described['base_url']}/v1/runs", headers=headers), timeout=30
    ) as answer:
        assert answer.status == 200
