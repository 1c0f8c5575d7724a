"""Devices, threads, progress, atomic files, callbacks."""
