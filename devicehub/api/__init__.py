"""The REST API: one module for each resource; `base` has what all views share. Nothing of it answers brokers."""
