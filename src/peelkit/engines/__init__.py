"""The outside programs. Nothing else knows their spelling."""
