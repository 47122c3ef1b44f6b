"""What a person configured: settings and their files, options, providers, keys."""
