"""A rotation's gauges in Prometheus' text format.

Decides their names. Refuses to know how the rotation goes on.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from handfast.trust.rotation import Generations, Outlook


def rotation_text(rows: Generations, outlook: Outlook, fault: str) -> bytes:
    """Give the stage of each generation, who holds up what, and whether an error (``fault``) keeps the rotation from going on."""
    registry = CollectorRegistry()
    stage = Gauge(
        "handfast_authority_stage", "1 for the stage of a generation", ["generation", "stage"], registry=registry
    )
    held = Gauge("handfast_rotation_held_up_by", "Agents and leaves that a step waits for", ["step"], registry=registry)
    stuck = Gauge("handfast_rotation_stuck", "1 while an error keeps a rotation from going on", registry=registry)
    for row in rows:
        stage.labels(str(row.number), row.stage.value).set(1)
    for one in outlook.waiting:
        held.labels(one.step.verb.value).set(one.strands)
    stuck.set(1 if fault else 0)
    return generate_latest(registry)
