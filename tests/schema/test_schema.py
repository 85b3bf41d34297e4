"""Whatever fits the example's OpenAPI document, and much that does not, gets no 500."""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance

from scripts.demo_server import create_tables, running_service
from tests.fix_scale import Scale


@pytest.mark.scaled(small=["postgres"])
def test_no_request_is_a_500(
    fresh_database: Mapping[str, str | int], tmp_path: Path, scale: Scale
) -> None:
    """Requests made from the document, valid and invalid ones, find no mistake of the service."""
    variables = {f"DB_{field.upper()}": str(value) for field, value in fresh_database.items()}
    create_tables(variables, tmp_path)
    answers: Counter[int] = Counter()
    with running_service(variables, tmp_path) as service:
        schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
        operations = [found.ok() for found in schema.get_all_operations()]
        for operation in operations:
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

                @seed(1851)
                @settings(
                    max_examples=scale(small=10, full=60),
                    database=None,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                )
                @given(case=operation.as_strategy(generation_mode=mode))
                def check(case: schemathesis.Case) -> None:
                    response = case.call()
                    answers[response.status_code] += 1
                    checks = [not_a_server_error]
                    if response.status_code < 300:
                        checks.append(response_schema_conformance)
                    case.validate_response(response, checks=checks)

                # What takes no input has no invalid one.
                with suppress(*([Unsatisfiable] if mode is GenerationMode.NEGATIVE else [])):
                    check()
    assert len(operations) >= 10
    assert {200, 201, 404, 409, 422} <= set(answers), answers
