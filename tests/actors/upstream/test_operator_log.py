"""Log lines for failures that the operator has to mend."""

import logging

import pytest

from actors.upstream.operator_log import LOG_SECONDS, OperatorLog
from protocol.errors import ProviderError
from protocol.gateway import ProviderFault
from protocol.refusals import refusal_of


def test_a_fault_of_the_operators_is_said_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """The line is a warning that names the provider, the model, the upstream's status, the code and the reason."""
    log = OperatorLog("openai")
    unpaid = refusal_of(402, {"error": {"message": "Insufficient Balance"}})
    with caplog.at_level(logging.WARNING):
        for now in (1.0, 2.0, LOG_SECONDS, 1.0 + LOG_SECONDS):
            log.report("m", unpaid, now)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert (
        caplog.messages[0]
        == "openai refuses calls: provider_billing, upstream status 402, model m: Insufficient Balance"
    )


def test_each_code_has_its_own_line(caplog: pytest.LogCaptureFixture) -> None:
    """Wrong keys are said although a line about billing has just been written."""
    log = OperatorLog("p")
    with caplog.at_level(logging.WARNING):
        for error in (refusal_of(402, ""), refusal_of(401, ""), refusal_of(404, "the model x does not exist")):
            log.report("m", error, 1.0)
    assert len(caplog.records) == 3


def test_other_failures_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the caller's faults, nor those that pass, nor ours, which have a line already."""
    log = OperatorLog("p")
    with caplog.at_level(logging.WARNING):
        for error in (refusal_of(400, "no"), refusal_of(429, ""), ProviderError(code="provider_credentials")):
            log.report("m", error, 1.0)
    assert not caplog.records


def test_a_fault_is_present_until_a_call_succeeds() -> None:
    """Keys, billing and an address without the service, with the status of the last and the time of the first."""
    log = OperatorLog("p")
    for passing in (refusal_of(500, ""), refusal_of(404, "the model x does not exist"), refusal_of(400, "no")):
        log.report("m", passing, 1.0)
    before = log.fault
    faults = []
    for status in (401, 405):
        log.report("m", refusal_of(status, "<html>"), 1.0)
        faults.append(log.fault)
    log.clear()
    faults.append(log.fault)
    first = faults[0]
    assert before is None
    assert first is not None
    assert (first.code, first.status) == ("provider_credentials", 401)
    assert faults[1:] == [ProviderFault("provider_bad_response", 405, first.since), None]
