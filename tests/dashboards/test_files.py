"""The shipped files are those that the servers load, without local files of a user."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
import yaml

from forwardscope.dashboards import files
from forwardscope.dashboards.files import shipped, working_folder
from forwardscope.errors import UserError

_CHECKOUT = Path(__file__).parents[2]
_NEEDED = {
    ".dockerignore",
    ".env.example",
    "Dockerfile",
    "docker-compose.yml",
    "docs/runbook.md",
    "dashboards/alertmanager/alertmanager.yml",
    "dashboards/grafana/forward-passes.json",
    "dashboards/grafana/overview.json",
    "dashboards/grafana/runs.json",
    "dashboards/jaeger/jaeger.yml",
    "dashboards/prometheus/alerts-runs.yml",
    "dashboards/prometheus/alerts-services.yml",
    "dashboards/prometheus/prometheus.yml",
    "dashboards/prometheus/recording.yml",
}


def test_servers_have_their_files() -> None:
    """The compose file, its inputs, dashboards, rules and the runbook ship."""
    assert set(shipped()) >= _NEEDED


def test_files_equal_the_checkout() -> None:
    """Each file has its path and content in the repository."""
    found = shipped()
    assert list(found) == sorted(found)
    assert found == {name: (_CHECKOUT / name).read_bytes() for name in found}


@pytest.mark.parametrize(
    "pattern", ["grafana/**/*", "jaeger/*", "prometheus/*.yml", "prometheus/tests/*"]
)
def test_new_files_ship(pattern: str) -> None:
    """A file that is added to one of these folders ships too."""
    inside = (_CHECKOUT / "dashboards").glob(pattern)
    present = {path.relative_to(_CHECKOUT).as_posix() for path in inside if path.is_file()}
    assert present
    assert present <= set(shipped())


def test_mounted_files() -> None:
    """Each path that the compose file mounts ships."""
    services = yaml.safe_load(shipped()["docker-compose.yml"])["services"].values()
    volumes = [one for service in services for one in service.get("volumes", ())]
    mounted = [one.split(":")[0].removeprefix("./") for one in volumes if one.startswith("./")]
    assert mounted
    for path in mounted:
        assert any(PurePosixPath(name).is_relative_to(path) for name in shipped())


def test_no_other_file() -> None:
    """The preview, and targets, secrets and settings of a user, do not ship."""
    names = shipped()
    assert [name for name in names if "preview" in name or "node_modules" in name] == []
    assert ".env" not in names
    for folder, known in {"prometheus/targets": "example", "alertmanager": "alertmanager"}.items():
        shipping = [name for name in names if name.startswith(f"dashboards/{folder}/")]
        assert shipping == [f"dashboards/{folder}/{known}.yml"]


def test_working_folder_installs_a_release() -> None:
    """The image of the demo installs a release of the package index; no other file changes."""
    plain, adapted = shipped(), working_folder("1.2.3")
    assert {name for name in plain if plain[name] != adapted[name]} == {".env.example"}
    lines = adapted[".env.example"].decode().splitlines()
    assert [one for one in lines if "FORWARDSCOPE=" in one] == [
        "FORWARDSCOPE=forwardscope[hf,otel]==1.2.3"
    ]
    assert len(lines) == len(plain[".env.example"].decode().splitlines())


def test_an_installation_without_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the command that repairs the installation."""
    monkeypatch.setattr(files, "_IN_WHEEL", tmp_path / "stack")
    monkeypatch.setattr(files, "_CHECKOUT", tmp_path)
    with pytest.raises(UserError, match=r"lacks the dashboards' files; .*--force-reinstall"):
        shipped()


def test_export_imports_no_extra(tmp_path: Path) -> None:
    """`forwardscope dashboards export` imports no package of an extra."""
    script = (
        "import sys\n"
        "from forwardscope.cli import main\n"
        f"sys.argv = ['forwardscope', 'dashboards', 'export', {str(tmp_path)!r}]\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    heavy = {'promql_parser', 'grafana_foundation_sdk', 'torch', 'opentelemetry.sdk'}\n"
        "    print(*heavy & set(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (0, "")
