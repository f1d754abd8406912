"""Frozen CLIPs whose towers take prompts."""
