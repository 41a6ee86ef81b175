"""The compose stack is local, pinned and consistent with its files."""

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

_ROOT = Path(__file__).parents[2]
_COMPOSE = yaml.safe_load((_ROOT / "docker-compose.yml").read_text("utf-8"))
_SERVICES: dict[str, dict[str, Any]] = _COMPOSE["services"]
_SERVERS = {name: service for name, service in _SERVICES.items() if name != "demo"}
_DAY_H = 24

on_each_service = pytest.mark.parametrize("name", _SERVICES)
on_each_server = pytest.mark.parametrize("name", _SERVERS)


def _read(path: str) -> Any:
    return yaml.safe_load((_ROOT / path).read_text("utf-8"))


def _mounts(service: dict[str, Any]) -> list[list[str]]:
    """Return source, target and optional `ro` of each volume."""
    return [mount.split(":") for mount in service.get("volumes", ())]


def _on_host(name: str, path: str) -> Path:
    """Return the file of the repository that is mounted at a path of a container."""
    for source, target, *_ in _mounts(_SERVICES[name]):
        if source.startswith("./") and PurePosixPath(path).is_relative_to(target):
            return _ROOT / source / PurePosixPath(path).relative_to(target)
    raise AssertionError(f"{name} has no file of the repository at {path}")


def _flags(name: str) -> dict[str, str]:
    """Return the --name=value options of a container's command."""
    return dict(one.split("=", 1) for one in _SERVICES[name]["command"] if "=" in one)


def _sources() -> dict[str, dict[str, Any]]:
    """Return Grafana's data sources by uid."""
    found = _read("dashboards/grafana/provisioning/datasources/forwardscope.yml")["datasources"]
    return {source["uid"]: source for source in found}


def test_images_are_pinned() -> None:
    """Each server has an exact version."""
    assert {name: service["image"] for name, service in _SERVERS.items()} == {
        "prometheus": "prom/prometheus:v3.14.0",
        "alertmanager": "prom/alertmanager:v0.34.0",
        "pushgateway": "prom/pushgateway:v1.11.3",
        "jaeger": "jaegertracing/jaeger:2.20.0",
        "grafana": "grafana/grafana:13.2.0",
    }


def test_ports_are_local() -> None:
    """Each port is published on 127.0.0.1 with its usual number; the demo publishes none."""
    ports = {name: service.get("ports", []) for name, service in _SERVICES.items()}
    assert ports == {
        "prometheus": ["127.0.0.1:9090:9090"],
        "alertmanager": ["127.0.0.1:9093:9093"],
        "pushgateway": ["127.0.0.1:9091:9091"],
        "jaeger": ["127.0.0.1:16686:16686", "127.0.0.1:4317:4317", "127.0.0.1:4318:4318"],
        "grafana": ["127.0.0.1:3000:3000"],
        "demo": [],
    }
    assert not any("network_mode" in service for service in _SERVICES.values())


@on_each_service
def test_containers_are_bounded(name: str) -> None:
    """Memory and logs have limits, and no process can gain privileges."""
    service = _SERVICES[name]
    assert re.match(r"\d+[mg]$", service["mem_limit"])
    assert service["logging"]["driver"] == "local"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")


@on_each_server
def test_servers_restart_and_have_health_checks(name: str) -> None:
    """Each server restarts, has a health check on 127.0.0.1, and writes only to its volumes."""
    service = _SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] == "CMD"
    assert "://127.0.0.1:" in service["healthcheck"]["test"][-1]
    assert service["read_only"] is True


@on_each_service
def test_services_wait_for_healthy_dependencies(name: str) -> None:
    """Each dependency has a health check, and the service waits for it."""
    for other, how in _SERVICES[name].get("depends_on", {}).items():
        assert how == {"condition": "service_healthy"}
        assert "healthcheck" in _SERVICES[other]


@on_each_service
def test_state_is_in_named_volumes(name: str) -> None:
    """Each container has its own volume, and cannot write to the repository."""
    mounts = _mounts(_SERVICES[name])
    assert [source for source, *_ in mounts if source in _COMPOSE["volumes"]]
    for source, _, *how in mounts:
        assert source in _COMPOSE["volumes"] or how == ["ro"]


def test_each_volume_is_used_once() -> None:
    """No volume is shared or unused."""
    used = [
        source
        for service in _SERVICES.values()
        for source, *_ in _mounts(service)
        if not source.startswith("./")
    ]
    assert sorted(used) == sorted(_COMPOSE["volumes"])


@on_each_service
def test_mounted_folders_exist(name: str) -> None:
    """Docker creates an empty folder for a missing one."""
    for source, *_ in _mounts(_SERVICES[name]):
        assert source in _COMPOSE["volumes"] or (_ROOT / source).is_dir()


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("prometheus", _flags("prometheus")["--config.file"]),
        ("alertmanager", _flags("alertmanager")["--config.file"]),
        ("jaeger", _SERVICES["jaeger"]["command"][-1]),
        ("grafana", "/etc/grafana/provisioning/datasources/forwardscope.yml"),
        ("grafana", "/etc/grafana/provisioning/dashboards/forwardscope.yml"),
        (
            "grafana",
            _SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"],
        ),
    ],
)
def test_configuration_files_exist(name: str, path: str) -> None:
    """Each configured path is a mounted file of the repository."""
    assert _on_host(name, path).is_file()


def test_persistent_state_is_on_volumes() -> None:
    """Each path that a server writes to is on a volume."""
    jaeger = _read("dashboards/jaeger/jaeger.yml")["extensions"]["jaeger_storage"]["backends"]
    written = {
        "prometheus": [_flags("prometheus")["--storage.tsdb.path"]],
        "alertmanager": [_flags("alertmanager")["--storage.path"]],
        "pushgateway": [_flags("pushgateway")["--persistence.file"]],
        "jaeger": list(jaeger["disk"]["badger"]["directories"].values()),
    }
    for name, paths in written.items():
        targets = [at for source, at, *_ in _mounts(_SERVICES[name]) if source[0] != "."]
        for path in paths:
            assert any(PurePosixPath(path).is_relative_to(target) for target in targets)


def test_grafana_requires_a_password() -> None:
    """There is no anonymous access, no sign-up, and no start without a password."""
    settings = _SERVICES["grafana"]["environment"]
    assert settings["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert settings["GF_USERS_ALLOW_SIGN_UP"] == "false"
    password = settings["GF_SECURITY_ADMIN_PASSWORD"]
    assert re.fullmatch(r"\$\{GRAFANA_PASSWORD:\?.*\.env\.example.*\}", password)


def test_grafana_does_not_update_plugins() -> None:
    """A failed update would leave Grafana without its data sources."""
    settings = _SERVICES["grafana"]["environment"]
    assert settings["GF_PLUGINS_PREINSTALL_AUTO_UPDATE"] == "false"
    assert settings["GF_PLUGINS_PREINSTALL_DISABLED"] == "true"


def test_example_of_settings() -> None:
    """The example has all variables, but no password, and comments out those with a default."""
    used = set(re.findall(r"\$\{([A-Z_]+)", (_ROOT / "docker-compose.yml").read_text("utf-8")))
    text = (_ROOT / ".env.example").read_text("utf-8")
    assert set(re.findall(r"^#?([A-Z_]+)=", text, re.MULTILINE)) == used
    assert re.findall(r"^[A-Z_]+=.*", text, re.MULTILINE) == ["GRAFANA_PASSWORD="]


def test_all_rules_are_loaded() -> None:
    """Prometheus loads exactly the rule files of the repository."""
    folder = _ROOT / "dashboards" / "prometheus"
    rules = {path.name for path in folder.glob("*.yml")} - {"prometheus.yml"}
    assert set(_read("dashboards/prometheus/prometheus.yml")["rule_files"]) == rules


def test_example_of_targets_is_empty() -> None:
    """The unchanged example adds no target."""
    assert _read("dashboards/prometheus/targets/example.yml") == []


def test_retention() -> None:
    """Metrics outlast the windows of the rules, and traces last as long as metrics."""
    days_kept = int(_flags("prometheus")["--storage.tsdb.retention.time"].removesuffix("d"))
    rules = _read("dashboards/prometheus/prometheus.yml")["rule_files"]
    texts = [(_ROOT / "dashboards/prometheus" / name).read_text("utf-8") for name in rules]
    assert days_kept > max(int(days) for text in texts for days in re.findall(r"\[(\d+)d\]", text))
    backends = _read("dashboards/jaeger/jaeger.yml")["extensions"]["jaeger_storage"]["backends"]
    assert backends["disk"]["badger"]["ttl"]["spans"] == f"{days_kept * _DAY_H}h"


def test_addresses_are_those_of_the_services() -> None:
    """Prometheus and Grafana use services of the stack, on the ports that these publish."""
    inside = {
        f"{name}:{port.rsplit(':', 1)[1]}"
        for name, service in _SERVERS.items()
        for port in service["ports"]
    }
    config = _read("dashboards/prometheus/prometheus.yml")
    fixed = [job.get("static_configs", []) for job in config["scrape_configs"]]
    fixed.append(config["alerting"]["alertmanagers"][0]["static_configs"])
    used = {target for some in fixed for one in some for target in one["targets"]}
    used |= {source["url"].removeprefix("http://") for source in _sources().values()}
    assert used - {"127.0.0.1:9090"} <= inside  # Prometheus itself


def test_data_sources_refer_to_each_other() -> None:
    """All uids exist, all sources are used, and none is editable."""
    sources = _sources()
    (prometheus,) = (one for one in sources.values() if one.get("isDefault"))
    options = prometheus["jsonData"]
    used = {one.get("datasourceUid") for one in options["exemplarTraceIdDestinations"]} - {None}
    assert {options["alertmanagerUid"], *used} == set(sources) - {prometheus["uid"]}
    assert all(source["editable"] is False for source in sources.values())


def test_exemplars_link_to_jaeger() -> None:
    """The links use the label trace_id: one within Grafana, and one to Jaeger's own page."""
    inside, outside = _sources()["forwardscope-prometheus"]["jsonData"][
        "exemplarTraceIdDestinations"
    ]
    assert inside["name"] == outside["name"] == "trace_id"
    assert inside["datasourceUid"] == "forwardscope-jaeger"
    # Grafana would read a single $ as an environment variable
    assert outside["url"] == "http://127.0.0.1:16686/trace/$${__value.raw}"


def test_dashboards_have_a_data_source() -> None:
    """The variable selects the type of the default source, which has the scrape interval."""
    default = _sources()["forwardscope-prometheus"]
    for path in (_ROOT / "dashboards/grafana").glob("*.json"):
        variable = json.loads(path.read_text("utf-8"))["templating"]["list"][0]
        assert (variable["type"], variable["query"]) == ("datasource", default["type"])
    scraped = _read("dashboards/prometheus/prometheus.yml")["global"]["scrape_interval"]
    assert default["jsonData"]["timeInterval"] == scraped


def test_dashboards_are_provisioned() -> None:
    """Grafana reads the folder of the dashboards, and cannot save changes."""
    (provider,) = _read("dashboards/grafana/provisioning/dashboards/forwardscope.yml")["providers"]
    assert _on_host("grafana", provider["options"]["path"]) == _ROOT / "dashboards/grafana"
    assert provider["allowUiUpdates"] is False


def test_inhibited_alerts_exist() -> None:
    """The names and labels in the configuration of Alertmanager are those of the rules."""
    rules = [
        rule
        for name in ("alerts-runs.yml", "alerts-services.yml")
        for group in _read(f"dashboards/prometheus/{name}")["groups"]
        for rule in group["rules"]
    ]
    gateway, file, failed = _read("dashboards/alertmanager/alertmanager.yml")["inhibit_rules"]
    assert gateway["source_matchers"] == ['alertname="PushFailed"', 'reason="gateway"']
    assert [rule for rule in rules if rule["labels"].get("reason") == "gateway"]
    assert file["equal"] == failed["equal"] == ["suite", "model"]
    assert failed["target_matchers"] == ['severity="warning"']
    named = (*file["source_matchers"], *file["target_matchers"])
    for matcher in (*named, *gateway["target_matchers"], *failed["source_matchers"]):
        names = re.fullmatch(r'alertname=~?"(.*)"', matcher)
        assert names, matcher
        assert set(names[1].split("|")) < {rule["alert"] for rule in rules}


def test_titles_of_notifications() -> None:
    """Alerts of one notification share all labels of their summary, so the title is not empty."""
    grouped = set(_read("dashboards/alertmanager/alertmanager.yml")["route"]["group_by"])
    for name in ("alerts-runs.yml", "alerts-services.yml"):
        for group in _read(f"dashboards/prometheus/{name}")["groups"]:
            for rule in group["rules"]:
                summary = rule["annotations"]["summary"]
                assert set(re.findall(r"\$labels\.(\w+)", summary)) <= grouped
    assert {"alertname", "reason"} <= grouped
