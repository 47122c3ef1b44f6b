"""Forms and the dashboard: `%infer panel` and `%infer dash`."""
