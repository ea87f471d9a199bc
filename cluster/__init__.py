"""Shared vocabulary and shared state; imports nothing of ours."""
