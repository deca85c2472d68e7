"""The program of its own on diffusers: settings, loading, the demo model, plan of a run, samplers, outputs."""
