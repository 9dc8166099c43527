"""Runs as data: one file each, stating what differs from base.py or from the config it imports; no code beyond that."""
