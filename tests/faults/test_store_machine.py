"""What fastload, other tools and accidents do to a local tier in any order, against a model in memory."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from store_machine import StoreMachine

TestStore = StoreMachine.TestCase
TestStore.settings = settings(
    max_examples=200, stateful_step_count=10, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
