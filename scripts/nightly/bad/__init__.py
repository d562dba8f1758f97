"""One bad archive or model for each reason to reject it."""
