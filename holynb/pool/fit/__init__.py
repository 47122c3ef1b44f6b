"""Whether a model fits: its spec, the device mesh, the plan and the memory. Imports no torch at module level."""
