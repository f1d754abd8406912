"""What the dataset declarations share: class folders, splits, layouts, storage."""
