"""The Helm chart: its values against their schema, what it renders against Kubernetes's own.

Rendered by Go's template engine and Sprig, which is what Helm is made of (``helm/render.go``).
"""

import copy
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from config.load import load
from tests.conftest import need

CHART = Path(__file__).parents[2] / "deploy/helm/icebroker"
RENDERER = Path(__file__).with_name("helm") / "render.go"
KUBERNETES = ["1.25", "1.37"]
"""The oldest that the chart says it is for, and the newest that is known."""
POD = "$(POD_IP)"
OF_THE_OPERATOR = {"ServiceMonitor", "PrometheusRule"}
SMALLEST = {"secrets": {"existing": "mine"}, "turn": {"config": {"hostname": "turn.example.org"}}}
LARGEST: dict[str, Any] = {
    "secrets": {"existing": "mine", "tenants": True},
    "imagePullSecrets": [{"name": "registry"}],
    "turn": {
        "config": {
            "hostname": "turn.example.org",
            "listen_tls": ["0.0.0.0:5349"],
            "max_bytes_per_second": 12500000,
            "open_private_peers": True,
            "deny_peers": ["10.0.0.0/8"],
            "external_addresses": ["stun:stun.example.org:3478", "stun:[2001:db8::1]"],
            "drain_timeout": 3600,
        },
        "tlsSecret": "turn-tls",
        "nodeSelector": {"icebroker": "relay"},
        "tolerations": [{"key": "relay", "operator": "Exists"}],
        "podAnnotations": {"a": "b"},
    },
    "signaling": {
        "replicas": 3,
        "config": {"allowed_origins": ["https://app.example.org"], "drain_timeout": 60},
        "service": {"type": "LoadBalancer", "port": 443, "annotations": {"c": "d"}},
        "ingress": {"enabled": True, "host": "rtc.example.org", "className": "nginx",
                    "tlsSecret": "web-tls", "annotations": {"e": "f"}},
        "podAnnotations": {"a": "b"},
    },
    "redis": {"enabled": True, "authority": True, "certificate": True},
    "admin": {"enabled": True},
    "metrics": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True},
        "dashboards": {"enabled": True},
    },
}  # fmt: skip


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Values as Helm merges them: tables key by key, anything else as a whole."""
    result = copy.deepcopy(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def values(changes: dict[str, Any]) -> dict[str, Any]:
    return merged(yaml.safe_load((CHART / "values.yaml").read_text()), changes)


SCHEMA = json.loads((CHART / "values.schema.json").read_text())


@pytest.fixture(scope="session")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that renders, built once."""
    go, made = need("go"), tmp_path_factory.mktemp("helm") / "render"
    environment = {
        **os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode",
        "GOCACHE": str(made.with_name("cache")),
    }  # fmt: skip
    subprocess.run([go, "build", "-o", made, RENDERER], env=environment, check=True)
    return made


class Refused(Exception):
    """The chart says that these values cannot be used, and why."""


@pytest.fixture
def render(renderer: Path):
    """Renders the chart with some values; gives the manifests."""

    def render(changes: dict[str, Any], release: str = "rtc") -> list[dict[str, Any]]:
        asked = {"values": values(changes), "release": release, "namespace": "calls", "apis": []}
        jsonschema.validate(asked["values"], SCHEMA)
        done = subprocess.run(
            [renderer, CHART], input=json.dumps(asked), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Refused(done.stderr)
        return [
            document
            for name, text in json.loads(done.stdout).items()
            if name.endswith(".yaml")
            for document in yaml.safe_load_all(text)
            if document
        ]

    return render


@pytest.mark.parametrize("changes", [SMALLEST, LARGEST], ids=["smallest", "largest"])
@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_what_is_rendered(render, changes, version):
    manifests = render(changes)
    for manifest in manifests:
        if manifest["kind"] not in OF_THE_OPERATOR:
            kubernetes_validate.validate(manifest, version, strict=True)
    named = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests]
    assert len(set(named)) == len(named)


def test_the_largest_has_everything(render):
    kinds = {manifest["kind"] for manifest in render(LARGEST)}
    assert kinds == OF_THE_OPERATOR | {
        "ConfigMap", "DaemonSet", "Deployment", "Ingress", "PodDisruptionBudget", "Service",
        "ServiceAccount",
    }  # fmt: skip


def pods(manifests: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        manifest["spec"]["template"]["spec"]["containers"][0]["name"]: manifest["spec"]["template"]
        for manifest in manifests
        if manifest["kind"] in {"DaemonSet", "Deployment"}
    }


@pytest.mark.parametrize("changes", [SMALLEST, LARGEST], ids=["smallest", "largest"])
def test_the_pods_start_with_settings_that_are_good(render, changes, tmp_path):
    """What Kubernetes would put into the environment is read as the service reads it."""
    manifests = render(changes)
    (configured,) = (
        manifest["data"]
        for manifest in manifests
        if manifest["kind"] == "ConfigMap" and "ICEBROKER_TURN__LISTEN" in manifest["data"]
    )
    (tmp_path / "secret").write_text("a secret that is long enough")
    (tmp_path / "url").write_text("rediss://redis.example.org:6379/0")
    (tmp_path / "tenants").write_text('{"shop": {"secret": "the secret of the shop"}}')
    files = {"ICEBROKER_REDIS__URL_FILE": "url", "ICEBROKER_TURN__TENANTS_FILE": "tenants"}
    for service, template in pods(manifests).items():
        container = template["spec"]["containers"][0]
        environment = dict(configured) | {
            entry["name"]: entry.get("value", "192.0.2.1") for entry in container["env"]
        }
        assert container["args"] == [service]
        mounts = [volume["mountPath"] for volume in container["volumeMounts"]]
        for name, value in environment.items():
            if name.endswith("_FILE"):
                assert any(value.startswith(mount) for mount in mounts)
                environment[name] = str(tmp_path / files.get(name, "secret"))
            if name.startswith("ICEBROKER_TURN__TLS_") and service == "turn":
                assert any(value.startswith(mount) for mount in mounts)
        listen = environment["ICEBROKER_ADMIN__LISTEN"]
        address = listen.replace(POD, "192.0.2.1")
        settings = load(None, environment | {"ICEBROKER_ADMIN__LISTEN": address})
        assert settings.turn.hostname == "turn.example.org"
        asked = [("stun.example.org", 3478), ("2001:db8::1", 3478)] if changes is LARGEST else []
        assert list(settings.turn.external_servers) == asked
        assert list(settings.turn.tenants) == (["shop"] if changes is LARGEST else [])
        # The second one is where `kubectl port-forward` comes out.
        assert settings.admin.listen == (("192.0.2.1", 9641), ("127.0.0.1", 9641))
        ipv6 = load(None, environment | {"ICEBROKER_ADMIN__LISTEN": listen.replace(POD, "fd00::5")})
        assert ipv6.admin.listen[0] == ("fd00::5", 9641)
        assert bool(settings.admin.token) == (changes is LARGEST)
        # Relays too, or nobody would tell them whom an operator has revoked.
        assert bool(settings.redis.url) == (changes is LARGEST)
        assert all(settings.redis.tls()) == (changes is LARGEST)
        (volume,) = [one for one in template["spec"]["volumes"] if one["name"] == "secrets"]
        taken = {item["path"] for item in volume["secret"]["items"]}
        named = [entry.get("value", "") for entry in container["env"]]
        assert {Path(one).name for one in named if one.startswith("/run/secrets/icebroker/")} == (
            taken
        )
        (secret,) = (v["secret"] for v in template["spec"]["volumes"] if v["name"] == "secrets")
        keys = {item["key"] for item in secret["items"]}
        assert ("admin" in keys) == (changes is LARGEST)
        (metrics,) = (p for p in container["ports"] if p["name"] == "metrics")
        assert {metrics["containerPort"]} == {place.port for place in settings.admin.listen}
        drain = getattr(settings, service).drain_timeout
        assert template["spec"]["terminationGracePeriodSeconds"] > drain


def test_no_pod_may_more_than_it_needs(render):
    for service, template in pods(render(LARGEST)).items():
        pod, container = template["spec"], template["spec"]["containers"][0]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert pod.get("hostNetwork", False) == (service == "turn")


def test_services_and_rules_find_their_pods(render):
    manifests = render(LARGEST)
    labels = {name: template["metadata"]["labels"] for name, template in pods(manifests).items()}
    for manifest in manifests:
        if manifest["kind"] == "Service":
            chosen = manifest["spec"]["selector"].items()
            found = [name for name, carried in labels.items() if chosen <= carried.items()]
            assert found == [manifest["spec"]["selector"]["app.kubernetes.io/component"]]
    (rules,) = (m for m in manifests if m["kind"] == "PrometheusRule")
    alerts = [rule for group in rules["spec"]["groups"] for rule in group["rules"]]
    assert {"IcebrokerDown", "IcebrokerRelayPortsLow"} <= {rule.get("alert") for rule in alerts}
    boards = [m["data"] for m in manifests if "-dashboard-" in m["metadata"]["name"]]
    assert [json.loads(text)["uid"] for data in boards for text in data.values()] == [
        "icebroker-relay", "icebroker-signaling",
    ]  # fmt: skip


def test_a_setting_that_changes_makes_new_pods(render):
    def sums(changes):
        return {
            name: template["metadata"]["annotations"]["checksum/config"]
            for name, template in pods(render(changes)).items()
        }

    before = sums(SMALLEST)
    assert sums(SMALLEST) == before
    after = sums(merged(SMALLEST, {"turn": {"config": {"realm": "other"}}}))
    assert all(after[name] != before[name] for name in before)


@pytest.mark.parametrize("release", ["icebroker", "my-icebroker", "x" * 53])
def test_names_stay_within_what_kubernetes_allows(render, release):
    for manifest in render(LARGEST, release):
        assert len(manifest["metadata"]["name"]) <= 63
        assert not manifest["metadata"]["name"].endswith("-")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"secrets": {"existing": ""}}, "secrets.existing is empty"),
        ({"turn": {"config": {"hostname": ""}}}, "turn.config.hostname is empty"),
        ({"turn": {"config": {"listen_tls": ["0.0.0.0:5349"]}}}, "listen_tls needs turn.tlsSecret"),
        ({"signaling": {"replicas": 2}}, "replicas above 1 needs redis.enabled"),
    ],
)
def test_values_that_contradict_are_refused_with_a_reason(render, changes, told):
    with pytest.raises(Refused, match=told):
        render(merged(SMALLEST, changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"sekrets": {}},
        {"turn": {"config": {"secret": "in the open"}}},
        {"turn": {"config": {"tenants": {"shop": {"secret": "in the open"}}}}},
        {"turn": {"config": {"drain_timeout": "5m"}}},
        {"signaling": {"replicas": 0}},
        {"signaling": {"ingress": {"enabled": True}}},
        {"metrics": {"port": 80}},
        {"log": {"level": "loud"}},
    ],
)
def test_the_schema_refuses_what_is_a_mistake(changes):
    jsonschema.validate(values(SMALLEST), SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values(merged(SMALLEST, changes)), SCHEMA)


def test_the_chart_is_of_the_version_that_it_installs():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    pyproject = (CHART.parents[2] / "pyproject.toml").read_text()
    assert f'\nversion = "{chart["appVersion"]}"\n' in pyproject
