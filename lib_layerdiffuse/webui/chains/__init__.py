"""Chains of methods in one job of a WebUI: the host makes a job of each step, and all of it goes out as one result."""
