"""Folders and files on disk: which class a folder is, what lies in it."""
