"""Fixtures that any test may ask for, and how patient property tests are."""

import signal

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.kube.fixtures"]

# How long an example takes says something of the machine and what else it does, not of the code.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# A shell that starts this in the background leaves SIGINT ignored, and programs that are started
# from here would inherit that: then they could not be interrupted, which some tests do.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
