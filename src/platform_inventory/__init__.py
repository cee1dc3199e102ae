"""Inventories of further platforms."""
