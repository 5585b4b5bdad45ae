"""The service behind the hostile tests."""

from tests.service.conftest import _no_certificates, _plain_logs, settings, start

__all__ = ["_no_certificates", "_plain_logs", "settings", "start"]
