"""Other toolkits, measured side by side."""
