"""What maintainers run: making the demo's weights and figure."""
