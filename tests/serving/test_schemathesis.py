"""Every answer is as the OpenAPI document says, to what it allows and to what it forbids.

docs/serve.md tells how to send a running service much more of it.
"""

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("schemathesis")

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.serving.fakes import FakeUpscaler
from tests.serving.live import served

_SHORT = settings(
    max_examples=20,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_answers_are_as_the_document_says(mode):
    with served(FakeUpscaler(), max_megabytes=1, max_megapixels=4) as (_, service, port):
        document = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
        asked = [_ask(found.ok(), mode) for found in document.get_all_operations()]
        assert len(asked) == 5 and sum(asked) >= 15
        assert service.idle


def _ask(operation, mode) -> int:
    """Send a few cases of an operation, and check the answers; how many there were."""
    answered = 0

    # Without a body or parameters, nothing can be wrong.
    if mode.is_negative and not operation.body:
        return 0

    @_SHORT
    @given(operation.as_strategy(generation_mode=mode))
    def answers_as_said(case):
        nonlocal answered
        # Any bytes pass for a picture in the document, and most are none.
        case.call_and_validate(excluded_checks=[positive_data_acceptance])
        answered += 1

    answers_as_said()
    return answered
