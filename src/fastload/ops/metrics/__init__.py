"""Prometheus' text format, for node-exporter's textfile collector: what the last load or warm of each model took."""
