"""The router: a routing core without input or output, and the gRPC service around it.

Data passes `bytes -> request -> gate -> plan -> exchange -> combine -> bytes`. A program that wants
the core without the service uses `moe_router.engine.Engine`.
"""
