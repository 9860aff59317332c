"""Devices, processes and cluster detection."""
