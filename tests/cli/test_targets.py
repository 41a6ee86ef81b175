"""The OTLP receiver: chosen by options, then by the standard variables."""

from __future__ import annotations

import pytest

from forwardscope.cli.targets import OtlpTarget, check_url, otlp_target, without_credentials
from forwardscope.errors import OutputError

_URL = "http://127.0.0.1:4318"


def test_no_receiver_by_default() -> None:
    """Without an option and a variable there are no spans."""
    assert otlp_target(None, None, {}) is None


@pytest.mark.parametrize(
    ("url", "protocol", "environ", "expected"),
    [
        (_URL, None, {}, "http/protobuf"),
        ("http://127.0.0.1:4317", None, {}, "grpc"),
        ("grpc://collector:9999", None, {}, "grpc"),
        ("http://127.0.0.1:4317", "http/protobuf", {}, "http/protobuf"),
        (_URL, "grpc", {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "grpc"),
        (_URL, None, {"OTEL_EXPORTER_OTLP_PROTOCOL": " GRPC "}, "grpc"),
        (
            _URL,
            None,
            {
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            },
            "http/protobuf",
        ),
    ],
)
def test_protocol(url: str, protocol: str | None, environ: dict[str, str], expected: str) -> None:
    """The option takes precedence, then the traces variable, the general one, and the port."""
    assert otlp_target(url, protocol, environ) == OtlpTarget(url, expected, explicit=True)


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_EXPORTER_OTLP_ENDPOINT": _URL},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://other", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": _URL},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": _URL, "OTEL_TRACES_EXPORTER": "otlp"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": _URL, "OTEL_SDK_DISABLED": "false"},
    ],
)
def test_standard_variables_name_a_receiver(environ: dict[str, str]) -> None:
    """The endpoint for traces takes precedence over the general one."""
    assert otlp_target(None, None, environ) == OtlpTarget(_URL, "http/protobuf", explicit=False)


@pytest.mark.parametrize(
    "more",
    [
        {"OTEL_SDK_DISABLED": "True"},
        {"OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    ],
)
def test_standard_variables_turn_spans_off(more: dict[str, str]) -> None:
    """A disabled SDK, the exporter `none` or an empty endpoint means no spans."""
    assert otlp_target(None, None, {"OTEL_EXPORTER_OTLP_ENDPOINT": _URL} | more) is None


@pytest.mark.parametrize(
    ("url", "environ", "message"),
    [
        ("localhost:4318", {}, "write it like http://"),
        ("ftp://localhost", {}, "'ftp://localhost' is not the URL of a server"),
        ("http://", {}, "not the URL of a server"),
        ("http://localhost:99999", {}, "not the URL of a server"),
        (_URL, {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "use http/protobuf or grpc"),
        (
            None,
            {"OTEL_EXPORTER_OTLP_ENDPOINT": _URL, "OTEL_TRACES_EXPORTER": "zipkin"},
            "only otlp and none",
        ),
    ],
)
def test_invalid_settings(url: str | None, environ: dict[str, str], message: str) -> None:
    """The message has the value and a valid one."""
    with pytest.raises(OutputError, match=message):
        otlp_target(url, None, environ)


def test_port_zero_is_invalid() -> None:
    """The message names the option and the URL."""
    with pytest.raises(OutputError, match="pushgateway: 'http://localhost:0'"):
        check_url("pushgateway", "http://localhost:0", ("http",), "http://localhost:9091")


def test_without_credentials() -> None:
    """User name and password are removed."""
    assert without_credentials("http://me:secret@host:4318/x") == "http://host:4318/x"
    assert without_credentials(_URL) == _URL
