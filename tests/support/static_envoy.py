"""Turns discovered resources into one static bootstrap, so that `envoy --mode validate` or a lone Envoy can take them."""

import copy
from typing import Any

from handfast.envoy import types
from handfast.envoy.bootstrap import RUNTIME, UNCOUNTED


def _inline_tls(tls: dict[str, Any], secrets: dict[str, Any]) -> None:
    common = tls["common_tls_context"]
    for config in common.pop("tls_certificate_sds_secret_configs", []):
        common.setdefault("tls_certificates", []).append(secrets[config["name"]]["tls_certificate"])
    if config := common.pop("validation_context_sds_secret_config", None):
        common["validation_context"] = secrets[config["name"]]["validation_context"]
    if combined := common.pop("combined_validation_context", None):
        context = secrets[combined["validation_context_sds_secret_config"]["name"]]["validation_context"]
        common["validation_context"] = {**combined["default_validation_context"], **context}


def static_bootstrap(resources: dict[str, dict[str, Any]], admin: str | None = None) -> dict[str, Any]:
    resources = copy.deepcopy(resources)
    secrets, routes, filters = resources[types.SECRET], resources[types.ROUTE], resources[types.EXTENSION]
    for cluster in resources[types.CLUSTER].values():
        if "transport_socket" in cluster:
            _inline_tls(cluster["transport_socket"]["typed_config"], secrets)
    for listener in resources[types.LISTENER].values():
        for chain in listener["filter_chains"]:
            _inline_tls(chain["transport_socket"]["typed_config"], secrets)
            manager = chain["filters"][0]["typed_config"]
            manager["route_config"] = routes[manager.pop("rds")["route_config_name"]]
            manager["http_filters"] = [
                filters[f["name"]] if "config_discovery" in f else f for f in manager["http_filters"]
            ]
    bootstrap: dict[str, Any] = {
        "node": {"id": "test", "cluster": "test"},
        "layered_runtime": RUNTIME,
        "stats_config": UNCOUNTED,
        "static_resources": {
            "clusters": list(resources[types.CLUSTER].values()),
            "listeners": list(resources[types.LISTENER].values()),
        },
    }
    if admin:
        bootstrap["admin"] = {"address": {"pipe": {"path": admin}}}
    return bootstrap
