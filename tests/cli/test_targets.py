"""The OTLP receivers: chosen by options, then by the standard variables."""

from __future__ import annotations

import pytest

from forwardscope.cli.targets import OtlpTarget, check_url, needs_sdk, otlp_target
from forwardscope.errors import MissingExtraError, OutputError

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


@pytest.mark.parametrize("exporters", ["otlp,console", " console , OTLP "])
def test_otlp_among_several_exporters(exporters: str) -> None:
    """The variable is a list; otlp in it is enough."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": _URL, "OTEL_TRACES_EXPORTER": exporters}
    assert otlp_target(None, None, environ) == OtlpTarget(_URL, "http/protobuf", explicit=False)


def test_exporters_of_other_programs() -> None:
    """Without otlp in the list there are no spans, with a warning."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": _URL, "OTEL_TRACES_EXPORTER": "zipkin"}
    with pytest.warns(RuntimeWarning, match="'zipkin', without otlp: no spans are exported"):
        assert otlp_target(None, None, environ) is None


def test_protocol_of_other_programs() -> None:
    """A protocol in the environment that is not known is warned of, and the usual one is used."""
    with pytest.warns(RuntimeWarning, match="'http/json', which is not known; use http/protobuf"):
        target = otlp_target(_URL, None, {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"})
    assert target == OtlpTarget(_URL, "http/protobuf", explicit=True)


def test_a_receiver_of_metrics() -> None:
    """An option names it; the protocol is that of the variables for metrics, or of the port."""
    given = otlp_target(_URL, None, {}, signal="metrics")
    assert given == OtlpTarget(_URL, "http/protobuf", explicit=True, signal="metrics")
    environ = {"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc"}
    named = otlp_target(_URL, None, environ, signal="metrics")
    assert named == OtlpTarget(_URL, "grpc", explicit=True, signal="metrics")
    traces = {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}
    assert otlp_target(_URL, None, traces, signal="metrics") == given
    with pytest.raises(OutputError, match=r"^otlp_metrics is not the URL of a server"):
        otlp_target("localhost:4318", None, {}, signal="metrics")


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": _URL}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": _URL, "OTEL_METRICS_EXPORTER": "otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": _URL, "OTEL_METRICS_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": _URL, "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": _URL, "OTEL_METRICS_EXPORTER": "otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": _URL, "OTEL_METRICS_EXPORTER": "prometheus"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": _URL}, False),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": _URL, "OTEL_METRICS_EXPORTER": "otlp"}, False),
    ],
)
def test_standard_variables_for_metrics(environ: dict[str, str], named: bool) -> None:
    """A receiver of spans is one of metrics only if a variable says so."""
    target = OtlpTarget(_URL, "http/protobuf", explicit=False, signal="metrics")
    assert otlp_target(None, None, environ, signal="metrics") == (target if named else None)


def test_metrics_exporters_of_other_programs() -> None:
    """An endpoint for metrics is not used without otlp in the list, with a warning."""
    environ = {
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": _URL,
        "OTEL_METRICS_EXPORTER": "prometheus",
    }
    with pytest.warns(RuntimeWarning, match="'prometheus', without otlp: no metrics are exported"):
        assert otlp_target(None, None, environ, signal="metrics") is None


@pytest.mark.parametrize("endpoint", ["localhost:4317", "unix:///run/otel.sock"])
def test_grpc_endpoint_without_a_scheme(endpoint: str) -> None:
    """If the environment names gRPC, its own forms of an address are valid."""
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
    }
    assert otlp_target(None, None, environ) == OtlpTarget(endpoint, "grpc", explicit=False)


@pytest.mark.parametrize(
    ("url", "mistake"),
    [
        ("localhost:4318", "it does not begin with a scheme"),
        ("me:s3cr3t@localhost:4318", "it does not begin with a scheme"),
        ("ftp://me:s3cr3t@localhost", "its scheme is none of http, https, grpc"),
        ("http://", "it has no host"),
        ("http://me:s3cr3t@localhost:99999", "its port is no number"),
        ("http://me:s3cr3t@localhost:0/s3cr3t", "its port is 0"),
        ("http://[s3cr3t/", "its address is not valid"),
    ],
)
def test_invalid_urls(url: str, mistake: str) -> None:
    """The message has the mistake and a valid URL, and nothing of the given one."""
    with pytest.raises(OutputError, match=r"write it like http://127\.0\.0\.1:4318$") as given:
        otlp_target(url, None, {})
    assert mistake in str(given.value)
    assert "s3cr3t" not in str(given.value)
    with pytest.raises(OutputError, match=r"^OTEL_EXPORTER_OTLP_ENDPOINT is not the URL"):
        otlp_target(None, None, {"OTEL_EXPORTER_OTLP_ENDPOINT": url})


def test_the_message_names_the_option() -> None:
    """The message begins with the option."""
    with pytest.raises(OutputError, match=r"^pushgateway is not the URL of a server"):
        check_url("pushgateway", "http://localhost:0", ("http",), "http://localhost:9091")


def test_a_variable_that_the_sdk_refuses() -> None:
    """It is a mistake of the user, with the message of the SDK, which names the variable."""
    refused = pytest.raises(OutputError, match="OTEL_X must be a number; correct the environment")
    with refused, needs_sdk("the SDK"):
        raise ValueError("OTEL_X must be a number")


def test_a_missing_sdk() -> None:
    """The message names the extra."""
    missing = pytest.raises(MissingExtraError, match=r"^the SDK is not installed; .*otel")
    with missing, needs_sdk("the SDK"):
        raise ModuleNotFoundError("opentelemetry.sdk")
