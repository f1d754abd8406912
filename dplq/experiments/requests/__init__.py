"""Requests for experiments: what a command line, a script or a sweep file asks for."""
