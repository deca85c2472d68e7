"""What a WebUI's page has of ours: header, settings, languages, plot axes, the answer to its script."""
