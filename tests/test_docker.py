"""What `docker/` says is what Kvasir knows: its settings, roles and files; and every container is shut in."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from core import registry
from core.settings import CONFIG_VARIABLE, SECRETS_VARIABLE, fields

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
COMPOSE = ("compose.yml", "compose.gpu.yml", "compose.scale.yml")
UNITS = ("kvasir.service", "kvasir@.service")
KNOWN = {field.variable for field in fields()} | {CONFIG_VARIABLE, SECRETS_VARIABLE}
SECRET = {field.variable for field in fields() if field.secret}
NO_SETTING = {"KVASIR_PUBLIC_URL", "KVASIR_SECTION__KEY"}
"""What a person gives `docker compose`, which turns it into a setting; and how settings are called in general."""

pytestmark = pytest.mark.skipif(not DOCKER.is_dir(), reason="the folder docker is not here")


def compose(name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = yaml.safe_load((DOCKER / name).read_text("utf-8"))
    return found


def services() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """File, name and service; what compose.gpu.yml adds to one of compose.yml's is looked at beside it."""
    for file in COMPOSE:
        for name, service in compose(file)["services"].items():
            whole = compose("compose.yml")["services"].get(name, {}) if file == "compose.gpu.yml" else {}
            yield file, name, {**whole, **service}


SERVICES = [pytest.param(service, id=f"{file}-{name}") for file, name, service in services()]


# ---------------------------------------------------------------- against the settings
def test_every_variable_of_ours_that_is_named_is_a_setting() -> None:
    files = [path for path in DOCKER.rglob("*") if path.is_file() and "secrets" not in path.relative_to(DOCKER).parts]
    assert len(files) > 8
    for path in files:
        named = set(re.findall(r"\bKVASIR_[A-Z0-9_]*[A-Z0-9]\b", path.read_text("utf-8")))
        assert named - KNOWN - NO_SETTING == set(), path


def test_every_secret_file_is_called_as_a_secret_setting() -> None:
    for file in COMPOSE:
        for name, secret in compose(file)["secrets"].items():
            assert secret == {"file": f"./secrets/{name}"}
            assert name.upper() in SECRET or name == "postgres_password", name


@pytest.mark.parametrize("service", SERVICES)
def test_no_secret_stands_in_plain_sight(service: Mapping[str, Any]) -> None:
    environment: Mapping[str, str] = service.get("environment", {})
    assert SECRET & environment.keys() == set()
    plain = {key for key in environment if re.search(r"PASSWORD|SECRET|TOKEN|API_?KEYS?$", key.upper())}
    for name in plain:
        assert environment[name].startswith("/run/secrets"), name


def test_the_image_has_no_secret() -> None:
    text = (DOCKER / "Dockerfile").read_text("utf-8")
    assert [name for name in SECRET if name in text] == []
    assert "/secrets/" in (DOCKER / ".gitignore").read_text("utf-8")
    allowed = (DOCKER / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    assert next(line for line in allowed if line and not line.startswith("#")) == "*", "what is not named stays out"


def test_every_role_runs_and_no_other_is_named() -> None:
    roles = set(registry.names("kvasir.services"))
    commands = {
        name: service["command"]
        for name, service in compose("compose.scale.yml")["services"].items()
        if service["image"].startswith("kvasir:")
    }
    assert {tuple(command) for command in commands.values()} == {("up", role) for role in roles}
    scale = compose("compose.scale.yml")["services"]
    assert [scale[name]["deploy"]["replicas"] for name in ("bots", "web", "jobs")] == [2, 2, 3]
    assert len([name for name in scale if name.startswith("weaviate-")]) == 3
    assert compose("compose.yml")["services"]["kvasir"]["command"] == ["up"]


def test_a_role_without_a_page_is_asked_whether_it_lives() -> None:
    scale = compose("compose.scale.yml")["services"]
    for role in ("bots", "jobs"):
        assert scale[role]["command"] == ["up", role]
        assert scale[role]["healthcheck"]["test"] == ["CMD", "kvasir", "doctor", "--role", role]


def test_database_connections_suffice_for_all_processes() -> None:
    """A process opens twenty at most (`core/db/session.py`)."""
    scale = compose("compose.scale.yml")["services"]
    processes = sum(scale[role]["deploy"]["replicas"] for role in registry.names("kvasir.services"))
    most = next(int(word.partition("=")[2]) for word in scale["postgres"]["command"] if "max_connections" in word)
    assert most >= 20 * processes + 20


# ---------------------------------------------------------------- how they are shut in
@pytest.mark.parametrize("service", SERVICES)
def test_every_container_is_shut_in(service: Mapping[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    user, _, group = service["user"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert "privileged" not in service
    assert service["restart"] == "unless-stopped"
    limits = service["deploy"]["resources"]["limits"]
    assert limits.keys() == {"cpus", "memory", "pids"}
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["healthcheck"].keys() >= {"interval", "timeout", "start_period", "retries"}
    for volume in service.get("volumes", []):
        assert "docker.sock" not in volume


@pytest.mark.parametrize("service", SERVICES)
def test_nothing_is_published_but_the_page_on_this_host_alone(service: Mapping[str, Any]) -> None:
    assert service.get("ports", ["127.0.0.1:8410:8410"]) == ["127.0.0.1:8410:8410"]
    assert "network_mode" not in service
    if "image" in service and "postgres" in service["image"]:
        assert service["networks"] == ["inside"]


def test_the_inner_network_leads_nowhere() -> None:
    for file in ("compose.yml", "compose.scale.yml"):
        assert compose(file)["networks"]["inside"]["internal"] is True
        published = [name for name, service in compose(file)["services"].items() if "ports" in service]
        assert published == (["kvasir"] if file == "compose.yml" else ["proxy"])


@pytest.mark.parametrize("service", SERVICES)
def test_every_image_is_of_a_version(service: Mapping[str, Any]) -> None:
    _, _, tag = service["image"].rpartition(":")
    assert re.fullmatch(r"v?\d+\.\d+(\.\d+)?(-[a-z0-9]+)?", tag), service["image"]


def test_the_image_is_ours_of_this_version() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    version = re.search(r'^version = "(.+)"$', project, re.M)
    assert version is not None
    ours = {service["image"] for _, _, service in services() if service["image"].startswith("kvasir:")}
    assert ours == {f"kvasir:{version[1]}"}
    assert f"ARG VERSION={version[1]}\n" in (DOCKER / "Dockerfile").read_text("utf-8")


# ---------------------------------------------------------------- the image
def stages() -> Mapping[str, str]:
    """Name -> its lines."""
    found = {}
    for part in re.split(r"^(?=FROM )", (DOCKER / "Dockerfile").read_text("utf-8"), flags=re.M)[1:]:
        head = re.match(r"FROM (\S+) AS (\S+)\n", part)
        assert head is not None, part.splitlines()[0]
        found[head[2]] = part
    return found


def test_every_base_is_of_a_version_or_a_stage() -> None:
    for name, text in stages().items():
        base = text.split()[1]
        assert base in stages() or re.search(r":\d+\.\d+\.\d+", base), name


def test_what_runs_has_no_root_one_volume_and_a_health_check() -> None:
    text = stages()["cpu"]
    assert re.findall(r"^USER (.+)$", text, re.M) == ["10001:10001"]
    assert re.findall(r"^VOLUME (.+)$", text, re.M) == ['["/var/lib/kvasir"]']
    assert "/readyz" in text.partition("HEALTHCHECK")[2]
    assert 'ENTRYPOINT ["kvasir"]' in text
    for label in ("title", "description", "licenses", "version", "revision", "created"):
        assert f"org.opencontainers.image.{label}=" in text
    assert "chmod -R a+rX /opt/model" in stages()["model"], "it is made for root alone"
    assert stages()["gpu"].startswith("FROM cpu AS gpu")
    assert "USER 0" not in "".join(stages().values())


def test_what_is_installed_has_its_hash() -> None:
    text = stages()["build"]
    for line in re.findall(r"\S*pip (?:install|wheel).*", text):
        assert "--require-hashes" in line or "--no-deps" in line, line
    assert "--no-build-isolation" in text
    for name in ("requirements-image.lock", "requirements-build.lock"):
        assert name in text
        blocks = re.split(r"\n(?=\S)", (ROOT / ".ci" / name).read_text("utf-8").strip())
        assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block or "==" not in block] == []


def test_the_image_has_all_that_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"]]
    for extra in ("postgres", "weaviate", "oidc"):
        wanted += project["optional-dependencies"][extra]
    text = (ROOT / ".ci" / "requirements-image.lock").read_text("utf-8")
    there = {canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.M)}
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(there[canonicalize_name(requirement.name)]), requirement


def test_what_is_copied_is_let_in() -> None:
    let_in = {line.lstrip("!") for line in (DOCKER / "Dockerfile.dockerignore").read_text("utf-8").splitlines()}
    for line in re.findall(r"^COPY (?!--from)(.+)$", (DOCKER / "Dockerfile").read_text("utf-8"), re.M):
        for source in line.split()[:-1]:
            assert source in let_in, source
            assert (ROOT / source).exists(), source


# ---------------------------------------------------------------- systemd, and the proxy
def unit(name: str) -> RawConfigParser:
    parser = RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # the way to keep capitals
    parser.read_string((DOCKER / "systemd" / name).read_text("utf-8"))
    return parser


@pytest.mark.parametrize("name", UNITS)
def test_the_units_are_shut_in_alike(name: str) -> None:
    service = unit(name)["Service"]
    assert service["ExecStart"].startswith("/opt/kvasir/bin/kvasir up")
    assert service["User"] == "kvasir"
    assert (service["Type"], service["NotifyAccess"]) == ("notify", "main"), "it says itself that it serves"
    assert int(service["WatchdogSec"]) >= 30
    assert service["CapabilityBoundingSet"] == ""
    assert service["ProtectSystem"] == "strict"
    assert service["NoNewPrivileges"] == "yes"
    assert service["LoadCredential"] == "kvasir:/etc/kvasir/secrets"
    other = unit(next(one for one in UNITS if one != name))["Service"]
    assert {key for key in service if service[key] != other.get(key)} == {"ExecStart"}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
@pytest.mark.parametrize("name", [*UNITS, "kvasir-worker@.service"])
def test_systemd_finds_little_to_say_against_the_units(name: str, tmp_path: Path) -> None:
    path = tmp_path / name.replace("@", "@web")
    path.write_text((DOCKER / "systemd" / name).read_text("utf-8").replace("/opt/kvasir/bin/kvasir", "/bin/true"))
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=30", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze looks at no files")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_the_proxy_is_believed_by_whichever_network_it_comes() -> None:
    """Protection: else all people are one to the limits, and https is not known as such."""
    scale = compose("compose.scale.yml")
    at = {network["ipv4_address"] for network in scale["services"]["proxy"]["networks"].values()}
    gateways = {one["gateway"] for one in scale["networks"]["outside"]["ipam"]["config"]}
    believed = json.loads(scale["services"]["web"]["environment"]["KVASIR_WEB__TRUSTED_PROXIES"])
    assert set(believed) == at | gateways
    assert set(scale["services"]["web"]["networks"]) == scale["services"]["proxy"]["networks"].keys()
    one = compose("compose.yml")
    believed = json.loads(one["services"]["kvasir"]["environment"]["KVASIR_WEB__TRUSTED_PROXIES"])
    assert believed == [network["gateway"] for network in one["networks"]["outside"]["ipam"]["config"]]


def test_the_proxy_leads_to_services_that_are_there() -> None:
    text = (DOCKER / "haproxy.cfg").read_text("utf-8")
    scale = compose("compose.scale.yml")["services"]
    ports = {"web": {"8410"}, "bots": {"8411", "8412"}} | {f"weaviate-{n}": {"8080", "50051"} for n in (1, 2, 3)}
    for name, port in re.findall(r"^    server(?:-template)? \S+ (?:\d+ )?([a-z0-9-]+):(\d+)$", text, re.M):
        assert name in scale
        assert port in ports[name]
    defaults = {field.variable: field.default for field in fields()}
    assert str(defaults["KVASIR_WEB__PORT"]) in ports["web"]
    assert {str(defaults[f"KVASIR_{name}"]) for name in ("TELEGRAM__WEBHOOK_PORT", "SLACK__EVENTS_PORT")} == ports[
        "bots"
    ]
    assert "GET uri /readyz" in text
